"""Scene: runs a script in a process group of its own, and finds what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from shared_memory import SharedMemory
from start_notes import without_start_notes

_FOLDER = Path(__file__).parent


class Scene:
    """A running script, its ranks, and what they have written."""

    def __init__(self, folder: Path, script: str, *args: str, **environment: str) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        self._errors = folder / "stderr"
        own = {
            "SCENE_MARK": self._mark, "SCENE_FOLDER": str(folder), "TMPDIR": str(folder)
        }  # fmt: skip
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_FOLDER / script), *args],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | own | environment,
                start_new_session=True,
                text=True,
            )
        self.pids: list[int] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        self.pids = next(self.lines(), [])
        assert self.pids, f"the scene ended before it was ready: {self.errors()}"

    def lines(self) -> Iterator[Any]:
        """The lines of JSON that it prints until it ends, parsed."""
        assert self._process.stdout is not None
        return map(json.loads, self._process.stdout)

    def signal_all(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def signal_engine(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, timeout_s: float = 60.0) -> int:
        """The exit status, as subprocess has it: -N for signal N."""
        return self._process.wait(timeout_s)

    def errors(self) -> str:
        return without_start_notes(self._errors.read_text())

    def processes(self) -> list[psutil.Process]:
        """All of the scene's processes, whoever their parent is by now."""
        found = []
        psutil.process_iter.cache_clear()  # of processes whose numbers others have by now
        for process in psutil.process_iter():
            # The session as well: while a process executes another program it has no environment.
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.status() != psutil.STATUS_ZOMBIE and (
                    os.getsid(process.pid) == self.pid
                    or process.environ().get("SCENE_MARK") == self._mark
                ):
                    found.append(process)
        return found

    def run_dirs(self) -> list[Path]:
        return list(self.folder.glob("mpspmd-*"))

    def marks(self, pattern: str) -> list[Path]:
        return list(self.folder.glob(pattern))

    def close(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Starts a scene; whatever is left of it is killed after the test."""
    scenes: list[Scene] = []

    def start(*args: str, script: str = "scenes.py", **environment: str) -> Scene:
        scenes.append(Scene(tmp_path, script, *args, **environment))
        return scenes[-1]

    yield start
    for scene in scenes:
        scene.close()


@pytest.fixture(autouse=True)
def _no_shared_memory_is_left() -> Iterator[None]:
    before = SharedMemory()
    yield
    # The kernel frees a killed process's memory some time after its death has been noticed.
    for _ in range(400):
        if not (left := before.added()):
            break
        time.sleep(0.05)
    assert not left, left
