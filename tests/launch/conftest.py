"""Runs mpspmd-launch in a session of its own, and looks for what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from start_notes import without_start_notes

HERE = Path(__file__).parent
LAUNCHER = [sys.executable, "-c", "from mpspmd.cli.launch.main import main; main()"]


class Launched:
    """A running launcher. Its processes have sessions of their own: they are known by a variable."""

    def __init__(self, folder: Path, *arguments: str, cwd: Path = HERE, **environment: str) -> None:
        self.folder = folder
        own = {"TMPDIR": str(folder), "MARKS": str(folder)}
        self.process = subprocess.Popen(
            [*LAUNCHER, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | own | environment,
            start_new_session=True,
        )

    def result(self, timeout_s: float = 100) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, without_start_notes(err)

    def starts(self) -> list[list[int]]:
        """For each start of the group its processes' ids, the engine first."""
        path = self.folder / "starts"
        if not path.exists():
            return []
        return [[int(pid) for pid in line.split()] for line in path.read_text().splitlines()]

    def processes(self, janitors: bool = False) -> list[psutil.Process]:
        """A janitor ends a moment after the processes whose files it removes."""
        found = []
        psutil.process_iter.cache_clear()  # of processes whose numbers others have by now
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                is_ours = process.environ().get("MARKS") == str(self.folder)
                is_wanted = janitors or "janitor_process" not in str(process.cmdline())
                if is_ours and is_wanted and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def leftovers(self, within_s: float = 20.0) -> list[psutil.Process | Path]:
        """The processes, janitors too, and files that are still there so long after the launcher has
        ended."""
        deadline = time.monotonic() + within_s
        while True:
            files = [*self.folder.glob("mpspmd-*"), *self.folder.glob("torchelastic*")]
            left = [*self.processes(janitors=True), *files]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.01)

    def close(self) -> None:
        for process in self.processes(janitors=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts mpspmd-launch; whatever is left of it ends with the test."""
    launched: list[Launched] = []

    def start(*arguments: str, **settings: str) -> Launched:
        launched.append(Launched(tmp_path, *arguments, **settings))
        return launched[-1]

    yield start
    for each in launched:
        each.close()
