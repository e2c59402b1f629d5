"""The standard streams of a command, whoever reads them, and however slowly."""

from __future__ import annotations

import contextlib
import os
import select
import sys

from mpspmd.transport.descriptor import open_standard_descriptors


def open_standard_streams() -> None:
    """Opens those on /dev/null that were closed when this process started: Python has none for them."""
    open_standard_descriptors()
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115


def write_all(fd: int, data: bytes) -> None:
    """Waits for whoever reads, also where the descriptor is set not to block: Node.js sets that on the
    pipes of programs that it starts. OSError when nobody can read any more.

    It holds no lock of Python's meanwhile, so another thread can still end the process.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def tell(words: str) -> None:
    """To people, on stderr."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    # A closed terminal or pipe is no failure.
    with contextlib.suppress(OSError):
        write_all(2, f"{words}\n".encode(encoding, "backslashreplace"))
