"""Pidfds: descriptors that stand for a process, and never for another one that gets its pid later.

An older kernel, or an older Docker's seccomp filter, may refuse each of these system calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import time

from mpspmd.transport.descriptor import above_standard

P_PIDFD = getattr(os, "P_PIDFD", 3)
"""Tells os.waitid() that it gets a pidfd."""

# struct pidfd_info of linux/pidfd.h. Since Linux 6.15 it tells the exit status to whoever held the pidfd
# when the process ended.
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_GET_INFO = 0xC000FF0B | _INFO.size << 16  # _IOWR(0xFF, 11, struct pidfd_info)

_REAPING_S = 0.05
"""How long the kernel may take from the end of a process until pidfd_info has its exit status."""


def open_pidfd(pid: int) -> int:
    """-1 where the system refuses pidfds."""
    with contextlib.suppress(OSError, AttributeError):
        return above_standard(os.pidfd_open(pid))
    return -1


def signal_by_pidfd(pidfd: int, number: int) -> bool:
    """Whether the system allows this. True also if the process has ended."""
    if pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return True
    except (OSError, AttributeError):
        return False
    return True


def exit_code_from_pidfd(pidfd: int) -> int | None:
    """The exit code of a process that this process can't reap; None where the kernel doesn't tell it."""
    deadline = time.monotonic() + _REAPING_S
    request = bytearray(_INFO.size)
    while pidfd >= 0:
        request[:] = _INFO.pack(_INFO_EXIT, *[0] * 13)
        try:
            fcntl.ioctl(pidfd, _GET_INFO, request)
        except OSError:
            return None
        mask, *_, status = _INFO.unpack(request)
        if mask & _INFO_EXIT:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return None


def wait_readable(fd: int, timeout_s: float | None) -> bool:
    """Whether `fd` is readable, or its other end is closed: for a pidfd, whether the process has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLRDHUP)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
