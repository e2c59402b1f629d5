"""DeathPipe: kills a process that is still starting when the process that started it ends."""

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

    A new process imports for many seconds before it can watch its parent itself. So the kernel does it, by
    asynchronous I/O: when the engine's end of a pipe closes, the kernel sends SIGKILL to the owner of the
    other end. The new process calls `disarm` as soon as it watches the engine by other means.
    (PR_SET_PDEATHSIG would fire when the thread that started the process ends.)
    """

    def __init__(self) -> None:
        read, write = pipe_above_standard()
        self._end = Descriptor(read)
        self._held: Descriptor | None = Descriptor(write)

    def arm(self, process: Process) -> None:
        """From now on the kernel kills `process`, which has the other end, when this process ends."""
        with contextlib.suppress(ProcessLookupError):
            fcntl.fcntl(self._end.fd, fcntl.F_SETOWN, process.pid)
        # The kernel took the process by its number. If it is alive now, that number was still its own.
        if not process.is_alive():
            return
        fcntl.fcntl(self._end.fd, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(self._end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._end.fd, fcntl.F_SETFL, flags | os.O_ASYNC)

    def disarm(self) -> None:
        """The started process calls this when it watches the engine by other means."""
        flags = fcntl.fcntl(self._end.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._end.fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self.close()

    def close(self) -> None:
        """Only when the process has called `disarm` or is gone: closing an armed pipe kills it."""
        self._end.close()
        if self._held is not None:
            self._held.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_end": self._end, "_held": None}
