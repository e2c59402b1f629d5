"""Descriptor: a file descriptor that goes with its object to a spawned process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from multiprocessing import reduction
from typing import Any

_FIRST_FREE = 3
"""0, 1 and 2 are the standard streams: what any library prints goes there, whatever they are."""


def open_standard_descriptors() -> None:
    """Opens those of the descriptors 0, 1 and 2 that are closed on /dev/null.

    Daemons and gateways start programs without them. The next file or socket that anybody opens would get
    the number, and what is printed to "stderr" would be written into it. Every process of ours calls this
    before it opens anything; the processes that it starts inherit what was opened.
    """
    # Without /dev/null they stay closed. Our own descriptors are moved away from these numbers in any case.
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:
            os.set_inheritable(fd, True)
        os.close(fd)


def above_standard(fd: int) -> int:
    """The same open file, under a number above 2. Closes `fd` if that is a new one, or if it fails."""
    if fd >= _FIRST_FREE:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def pipe_above_standard(flags: int = 0) -> tuple[int, int]:
    """The ends of a new pipe for reading and for writing, both above 2 and not inherited."""
    read, write = os.pipe2(flags | os.O_CLOEXEC)
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
    """Owns `fd`, which is above 2. As part of an argument of a spawned process it becomes a descriptor of
    that process."""

    def __init__(self, fd: int) -> None:
        """Takes over `fd`, and closes it if it can't be kept."""
        self.fd = above_standard(fd)
        """-1 when closed."""

    def close(self) -> None:
        """More than once does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (type(self), reduction.DupFd(self.fd))


def _receive(cls: type[Descriptor], duplicate: Any) -> Descriptor:
    fd = duplicate.detach()
    # Not for what this process starts in turn.
    os.set_inheritable(fd, False)
    return cls(fd)
