"""LaunchedProcess: a rank's process whose parent is the launcher, seen from the engine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from multiprocessing.process import BaseProcess

from mpspmd.transport.descriptor import above_standard

# linux/pidfd.h: struct pidfd_info, of which Linux 6.15 and later fill in the exit status for whoever
# held the pidfd when the process ended.
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_GET_INFO = 0xC000FF0B | _INFO.size << 16  # _IOWR(0xFF, 11, struct pidfd_info)


class _Elsewhere:
    """What multiprocessing asks of a process that it has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sentinel = above_standard(os.pidfd_open(pid))
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs, or when nobody can tell."""
        if self._status is None and self.is_gone(0.0):
            self._status = _status_from_pidfd(self.sentinel)
            if self._status is None:
                self._status = _status_from_zombie(self.pid)
            if self._status is None:  # it was reaped in between
                self._status = _status_from_pidfd(self.sentinel)
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def is_gone(self, timeout_s: float | None) -> bool:
        poller = select.poll()
        poller.register(self.sentinel, select.POLLIN)
        return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))

    def terminate(self) -> None:
        """Called at exit for a process whose status nobody can tell: gone or not."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.sentinel, signal.SIGTERM)

    def close(self) -> None:
        os.close(self.sentinel)


class LaunchedProcess(BaseProcess):
    """`start()` adopts the running process. The launcher reaps it, so that only a sufficiently new kernel,
    or luck, tells how it ended; the launcher's summary always does."""

    def __init__(self, pid: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._elsewhere = _Elsewhere(pid)

    def _Popen(self, _: BaseProcess) -> _Elsewhere:  # noqa: N802 - multiprocessing's name
        return self._elsewhere

    def is_alive(self) -> bool:
        return not self._elsewhere.is_gone(0.0)

    def join(self, timeout: float | None = None) -> None:
        self._elsewhere.is_gone(timeout)


def _status_from_pidfd(fd: int) -> int | None:
    request = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _GET_INFO, request)
        mask, *_, status = _INFO.unpack(request)
        if mask & _INFO_EXIT:
            return int(status)
    return None


def _status_from_zombie(pid: int) -> int | None:
    """Until its parent has reaped it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        state, *fields = stat.read().rpartition(")")[2].split()
        if state in "ZX":
            return int(fields[-1])
    return None
