"""DeathPipe: if the engine ends while a rank is starting, the kernel kills the rank."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from typing import Any

from mpspmd.processes.process import Process
from mpspmd.transport.descriptor import Descriptor, pipe_above_standard


class DeathPipe:
    """The engine makes it before it starts a process, gives it to the process, and calls `arm`.

    A new process imports for many seconds before it can watch the engine itself. Until then the kernel
    watches, by asynchronous I/O: when the engine's end of a pipe closes, the kernel sends SIGKILL to the
    owner of the other end. (PR_SET_PDEATHSIG would kill also when just the starting thread ends.)
    """

    def __init__(self) -> None:
        read, write = pipe_above_standard()
        self._rank_end = Descriptor(read)
        self._engine_end: Descriptor | None = Descriptor(write)

    def arm(self, process: Process) -> None:
        """In the engine: from now on the kernel kills `process` when this process ends."""
        with contextlib.suppress(ProcessLookupError):
            fcntl.fcntl(self._rank_end.fd, fcntl.F_SETOWN, process.pid)
        # The kernel found the process by its pid. If the process is still alive, it was the right one.
        if not process.is_alive():
            return
        fcntl.fcntl(self._rank_end.fd, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(self._rank_end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._rank_end.fd, fcntl.F_SETFL, flags | os.O_ASYNC)

    def disarm(self) -> None:
        """In the started process, as soon as it watches the engine itself."""
        flags = fcntl.fcntl(self._rank_end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._rank_end.fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self.close()

    def close(self) -> None:
        """In the engine, after the process has ended or has called `disarm`. Else this kills it."""
        self._rank_end.close()
        if self._engine_end is not None:
            self._engine_end.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_rank_end": self._rank_end, "_engine_end": None}
