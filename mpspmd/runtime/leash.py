"""Leash: a process that is still starting doesn't outlive the one that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from typing import Any

from mpspmd.runtime.process import Process
from mpspmd.transport.descriptor import Descriptor, pipe_above_standard


class Leash:
    """Made before the process is started, and given to it; `tie` it then; it calls `slip`.

    A new process imports for many seconds before it can watch anything. So the kernel does, by
    asynchronous I/O: when the engine's end of a pipe closes, it sends the owner of the other end a
    SIGKILL. (PR_SET_PDEATHSIG would fire when the thread that started the process ends.)
    """

    def __init__(self) -> None:
        read, write = pipe_above_standard()
        self._end = Descriptor(read)
        self._held: Descriptor | None = Descriptor(write)

    def tie(self, process: Process) -> None:
        """The process, which has inherited the leash, ends with this one."""
        with contextlib.suppress(ProcessLookupError):
            fcntl.fcntl(self._end.fd, fcntl.F_SETOWN, process.pid)
        # The kernel has found the process by its number, which was still its own if it lives.
        if not process.is_alive():
            return
        fcntl.fcntl(self._end.fd, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(self._end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._end.fd, fcntl.F_SETFL, flags | os.O_ASYNC)

    def slip(self) -> None:
        """In the started process: from now on it watches by other means."""
        flags = fcntl.fcntl(self._end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._end.fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self.close()

    def close(self) -> None:
        """Only when the process has slipped or is gone: closing pulls the leash."""
        self._end.close()
        if self._held is not None:
            self._held.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_end": self._end, "_held": None}
