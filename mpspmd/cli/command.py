"""What all commands do: they prepare their process, and write in full to slow readers."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys

from mpspmd.transport.descriptor import open_standard_descriptors


def prepare_process() -> None:
    """Call it first: a closed standard stream or a deleted working directory must not break a command."""
    open_standard_descriptors()
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:  # it was closed at the start
            with contextlib.suppress(OSError):
                setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a command, nor `µs` where that is ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")  # in a deleted directory even `import torch` fails


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, and waits for a slow reader. OSError when the reader is gone.

    It also waits if the descriptor is non-blocking, as Node.js makes the pipes of its child processes.
    The interpreter's lock is free meanwhile, so another thread can still end the process.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def tell(words: str, fd: int = 2) -> None:
    """Prints a line, on stderr unless `fd` is 1. A closed terminal or pipe or a full disk is no error."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError):
        write_all(fd, f"{words}\n".encode(encoding, "backslashreplace"))
