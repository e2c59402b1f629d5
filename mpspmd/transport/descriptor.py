"""Descriptor: a file descriptor that goes with its object to a spawned process."""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any


class Descriptor:
    """Owns `fd`. As part of an argument of a spawned process it becomes a descriptor of that process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
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
