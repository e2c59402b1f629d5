"""What a program leaves on the machine, and what it does to things that belong to others."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from shared_memory import SHM as _SHM
from shared_memory import SharedMemory
from start_notes import without_start_notes

HERE = Path(__file__).parent
_STRANGER = "trap 'echo signalled' HUP INT TERM USR1 USR2; echo ready; read -r line"
_MARK = "TEST_MARK"


class Traces:
    """Runs programs in `folder`, then compares the machine with what it was before.

    Beside each program stand a stranger's files and processes. Their names look like those of our own
    files, or of files that vLLM and multiprocessing make.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        name = f"stranger-{self._mark[:8]}"
        self._strangers = {
            path: os.urandom(4096)
            for path in (
                _SHM / f"psm_{name}",
                _SHM / f"sem.mp-{name}",
                _SHM / f"vllm_dist_{name}-cpushm_0",
                _SHM / f"mpspmd-{name}",
                folder / f"vllm_dist_{name}",
                folder / f"{name}.txt",
                folder / f"mpspmd-{name}" / "a file",
                # As a run's folder, but for the name, and but for the marker.
                folder / f"mpspmd-{name}" / "lock",
                folder / f"mpspmd-{self._mark[:8]}" / "lock",
                folder / f"mpspmd-{self._mark[:8]}" / "control",
                _SHM / f"mpspmd-{self._mark[:8]}" / "lock",
            )
        }
        self._folders = sorted(self._parents())
        for path in self._folders:
            path.mkdir(mode=0o700, exist_ok=True)
        for path, content in self._strangers.items():
            path.write_bytes(content)
            path.chmod(0o600)
        for path in self._folders:
            os.utime(path, (0, 0))
        # Writes into its pipe when a signal comes that can be caught; ends with its standard input.
        self.stranger = subprocess.Popen(
            ["/bin/sh", "-c", _STRANGER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self.stranger.stdout is not None
        assert self.stranger.stdout.readline() == "ready\n"
        self._files = set(self.folder.iterdir())
        self._shm = SharedMemory()

    def run(
        self,
        *command: str,
        before: str = "",
        after: str = "",
        prefix: Sequence[str] = (),
        timeout_s: float = 60.0,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in a shell, in a session of its own, and waits for it.

        `before` are shell commands that prepare the process, `after` are redirections, and `prefix` is
        a command that runs all that, such as `unshare --net`. A command that ends in `.py` is a script of
        this folder; `python` is this Python; one that begins with `mpspmd-` is ours, of this checkout.
        """
        done = subprocess.run(
            [*prefix, "/bin/sh", "-c", f"{before} exec {shlex.join(program(command))} {after}"],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            start_new_session=True,
        )
        done.stderr = without_start_notes(done.stderr)
        return done

    @property
    def environment(self) -> dict[str, str]:
        """For a program that a test starts by itself. It marks the program's processes."""
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return os.environ | {
            _MARK: self._mark,
            "TMPDIR": str(self.folder),
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def processes(self) -> list[psutil.Process]:
        """Those of the programs, whoever their parent is by now."""
        found = []
        psutil.process_iter.cache_clear()  # of processes whose numbers others have by now
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get(_MARK) == self._mark
                ):
                    found.append(process)
        return found

    def left_behind(self) -> list[str]:
        """New files, processes and bytes of shared memory, each in words."""
        left = [f"process {process.pid}" for process in self.processes()]
        left += [f"file {path}" for path in sorted(set(self.folder.iterdir()) - self._files)]
        return left + self._shm.added()

    def harmed(self) -> list[str]:
        """What belongs to the stranger and is not as it was, each in words."""
        harmed = []
        for path, content in self._strangers.items():
            if not path.exists():
                harmed.append(f"{path} is gone")
            elif path.read_bytes() != content:
                harmed.append(f"{path} has changed")
        harmed += [f"{path} is gone" for path in self._folders if not path.is_dir()]
        gone = (self._files | self._shm.files) - {*self.folder.iterdir(), *_SHM.iterdir()}
        harmed += [f"file {path} is gone" for path in sorted(gone)]
        if self.stranger.poll() is not None:
            harmed.append("the stranger's process is gone")
        return harmed

    def close(self) -> list[str]:
        """Ends what is left of the programs, removes the stranger's things, and tells what it has seen."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        seen, _ = self.stranger.communicate("end\n")
        for path in self._strangers:
            path.unlink(missing_ok=True)
        for path in self._folders:
            with contextlib.suppress(OSError):
                path.rmdir()
        return ["the stranger's process was signalled"] if seen else []

    def _parents(self) -> set[Path]:
        """The stranger's folders that have files in them."""
        return {path.parent for path in self._strangers} - {_SHM, self.folder}


def program(command: Sequence[str]) -> list[str]:
    name, *arguments = command
    if name == "python":
        return [sys.executable, *arguments]
    if name.endswith(".py"):
        return [sys.executable, str(HERE / name), *arguments]
    if name.startswith("mpspmd-"):
        return [sys.executable, "-m", "mpspmd", name.removeprefix("mpspmd-"), *arguments]
    return list(command)


def remove_control_group(folder: Path) -> None:
    """The janitor, which is in it as well, goes a moment after the program; and the kernel takes a moment
    to see that a group's last process has gone."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)
    folder.rmdir()


def skip_unless_it_works(*command: str) -> None:
    """Skips a test on a machine that refuses what it needs, such as a new namespace."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"this machine refuses `{shlex.join(command)}`: {done.stderr.strip()}")
