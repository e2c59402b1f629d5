"""Descriptor: a file descriptor whose object can be sent to a spawned process; none is below 3."""

from __future__ import annotations

import contextlib
import fcntl
import os
from multiprocessing import reduction
from typing import Any

_FIRST_FREE = 3
"""0, 1 and 2 are the standard streams; any library may print to them, whatever is open there."""


def open_standard_descriptors() -> None:
    """Opens those of the descriptors 0, 1 and 2 that are closed on /dev/null.

    Some daemons start programs with them closed. The next file or socket would get that number, and
    whatever is printed to stderr would be written into it. Each of our processes calls this before it opens
    anything, and the processes that it starts inherit the descriptors.
    """
    # Without /dev/null they stay closed; above_standard() keeps our own descriptors away from them.
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:
            os.set_inheritable(fd, True)
        os.close(fd)


def above_standard(fd: int) -> int:
    """`fd`, or if that is below 3 a duplicate that isn't; then, or if that fails, `fd` is closed."""
    if fd >= _FIRST_FREE:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def pipe_above_standard() -> tuple[int, int]:
    """A new pipe: (read end, write end), both above 2 and not inherited."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        read = above_standard(read)
    except OSError:
        os.close(write)
        raise
    try:
        return read, above_standard(write)
    except OSError:
        os.close(read)
        raise


class Descriptor:
    """Owns `fd`, which is above 2. In an argument of a spawned process it becomes a descriptor of that
    process."""

    def __init__(self, fd: int) -> None:
        """Takes over `fd`; if that fails, `fd` is closed."""
        self.fd = above_standard(fd)
        """-1 when closed."""

    def close(self) -> None:
        """A second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (type(self), reduction.DupFd(self.fd))


def _receive(cls: type[Descriptor], duplicate: Any) -> Descriptor:
    fd = duplicate.detach()
    # The processes that this one starts must not inherit it.
    os.set_inheritable(fd, False)
    return cls(fd)
