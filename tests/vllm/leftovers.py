"""What processes leave behind: looked at before and after."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil


def _files() -> set[str]:
    names = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
    temp = Path(tempfile.gettempdir())
    return names | {str(path) for pattern in ("mpspmd-*", "vllm_dist_*") for path in temp.glob(pattern)}


@dataclass
class Leftovers:
    """Made before; `check()` after. Other runs on the machine may come and go: only what is new and
    stays counts."""

    files: set[str] = field(default_factory=_files)

    def new_files(self, within_s: float) -> set[str]:
        """What is new, and still there after `within_s`."""
        end = time.monotonic() + within_s
        while (new := _files() - self.files) and time.monotonic() < end:
            time.sleep(0.05)
        return new


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
