"""Leash: a process that is still starting doesn't outlive the one that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from multiprocessing import reduction
from typing import Any


class Leash:
    """Made before the process is started, and given to it; `tie` it then; it calls `slip`.

    A new process imports for many seconds before it can watch anything. So the kernel does, by
    asynchronous I/O: when the engine's end of a pipe closes, it sends the owner of the other end a
    SIGKILL. (PR_SET_PDEATHSIG would fire when the thread that started the process ends.)
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)

    def tie(self, pid: int) -> None:
        """The process `pid`, which has inherited the leash, ends with this one."""
        fcntl.fcntl(self._read, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self._read, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(self._read, fcntl.F_GETFL)
        fcntl.fcntl(self._read, fcntl.F_SETFL, flags | os.O_ASYNC)

    def slip(self) -> None:
        """In the started process: from now on it watches by other means."""
        flags = fcntl.fcntl(self._read, fcntl.F_GETFL)
        fcntl.fcntl(self._read, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self.close()

    def close(self) -> None:
        """Only when the process has slipped or is gone: closing pulls the leash."""
        for fd in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._read = self._write = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (reduction.DupFd(self._read),)


def _receive(duplicate: Any) -> Leash:
    leash = Leash.__new__(Leash)
    leash._read, leash._write = duplicate.detach(), -1
    os.set_inheritable(leash._read, False)
    return leash
