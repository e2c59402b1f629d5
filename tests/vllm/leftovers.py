"""What processes leave behind: looked at before and after."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import psutil

# Of the engine and its ranks; vLLM's front end may say what it likes about its user's Ctrl-C.
_COMPLAINTS = re.compile(
    r"\((EngineCore|Worker).*(Traceback|WARNING.*shutdown)|resource_tracker|mpspmd.*Traceback"
)


def complaints(log: str) -> list[str]:
    """What engine and ranks say of an end that is none of a failure."""
    return [line for line in log.splitlines() if _COMPLAINTS.search(line)]


def _shared_memory() -> set[str]:
    return {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}


def files_of_runs(temp: Path) -> set[str]:
    """All files in shared memory, and those that a run has made in its temp folder."""
    patterns = ("mpspmd-*", "vllm_dist_*")
    return _shared_memory() | {str(path) for pattern in patterns for path in temp.glob(pattern)}


class Leftovers:
    """Made before; `new_files()` after. `temp` is a temp folder for what runs in between."""

    def __init__(self) -> None:
        # Short: vLLM's and our sockets lie in it, and a socket's path has 107 bytes.
        self.temp = Path(tempfile.mkdtemp(prefix="left-"))
        atexit.register(shutil.rmtree, self.temp, ignore_errors=True)
        self._before = _shared_memory()

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"TMPDIR": str(self.temp)}

    def new_files(self, within_s: float) -> set[str]:
        """What is new in shared memory, or of a run in the temp folder, after `within_s`."""
        end = time.monotonic() + within_s
        while (new := self._new()) and time.monotonic() < end:
            time.sleep(0.05)
        return new

    def _new(self) -> set[str]:
        return files_of_runs(self.temp) - self._before


def session_processes(session: int) -> list[str]:
    """Living processes of a session, with their titles: a daemon started with setsid has its own."""
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def wait_until_gone(session: int, within_s: float) -> list[str]:
    """Processes of the session that are still there after `within_s`."""
    end = time.monotonic() + within_s
    while (alive := session_processes(session)) and time.monotonic() < end:
        time.sleep(0.05)
    return alive
