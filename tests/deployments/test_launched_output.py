"""The launcher's output, where whoever gets it reads slowly or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from traces import HERE, Traces, program

pytestmark = pytest.mark.timeout(120)

_PIPE_BYTES = 4096


class _Reader:
    """A launcher of one rank that prints lines, and the pipe that it prints to."""

    def __init__(self, traces: Traces, n_lines: int, *, blocking: bool) -> None:
        self.fd, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(write, blocking)
        command = ["mpspmd-launch", "-n", "1", "--ranks-only", str(HERE / "talker.py")]
        self.launcher = subprocess.Popen(
            program([*command, str(n_lines)]),
            cwd=traces.folder,
            env=traces.environment,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write)
        self._end = traces.folder / "printed"

    def has_printed(self) -> bool:
        """The rank has, into the launcher's pipe."""
        return self._end.exists()

    def pipe_is_full(self) -> bool:
        waiting = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return int.from_bytes(waiting, "little") > _PIPE_BYTES - 100

    def result(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, err = self.launcher.communicate(timeout=60)
        return self.launcher.returncode, err

    def close(self) -> None:
        os.close(self.fd)
        self._end.unlink(missing_ok=True)
        self.launcher.kill()
        self.launcher.communicate()


@pytest.fixture
def reader(traces: Traces) -> Iterator[Callable[..., _Reader]]:
    with contextlib.ExitStack() as stack:

        def start(n_lines: int, *, blocking: bool) -> _Reader:
            reader = _Reader(traces, n_lines, blocking=blocking)
            stack.callback(reader.close)
            return reader

        yield start


@pytest.mark.parametrize("blocking", [True, False])
def test_sigterm_ends_a_run_though_nobody_reads_its_output(
    reader: Callable[..., _Reader], eventually: Any, blocking: bool
) -> None:
    unread = reader(10**9, blocking=blocking)
    eventually(unread.pipe_is_full, "the pipe is full", 60)
    unread.launcher.send_signal(signal.SIGTERM)
    assert unread.result() == (128 + signal.SIGTERM, "")


def test_sigterm_ends_a_launcher_that_waits_for_its_reader_only(
    reader: Callable[..., _Reader], eventually: Any
) -> None:
    unread = reader(1000, blocking=True)
    eventually(unread.has_printed, "the rank has printed", 60)
    eventually(unread.pipe_is_full, "the pipe is full", 60)
    eventually(lambda: _children(unread.launcher.pid) == [], "the rank has ended")
    unread.launcher.send_signal(signal.SIGTERM)
    assert unread.result() in ((128 + signal.SIGTERM, ""), (-signal.SIGTERM, ""))


def test_a_pipe_that_does_not_block_loses_no_line(
    reader: Callable[..., _Reader], eventually: Any
) -> None:
    """Node.js gives such a pipe to the programs that it starts."""
    slow = reader(2000, blocking=False)
    eventually(slow.pipe_is_full, "the pipe is full", 60)
    eventually(slow.has_printed, "the rank has printed", 60)
    with open(slow.fd, "rb", closefd=False) as stream:
        lines = stream.read().decode().splitlines()
    assert slow.result() == (0, "")
    assert lines == [f"[rank0] line {number}" for number in range(2000)]


def test_a_closed_stdout_is_no_failure(traces: Traces) -> None:
    done = traces.run(
        "mpspmd-launch", "-n", "1", "--ranks-only", str(HERE / "talker.py"), "1", after=">&-"
    )
    (traces.folder / "printed").unlink()
    assert (done.returncode, done.stderr) == (0, "")


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]
