"""The working directory, where it has been deleted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def leave_a_deleted_working_directory() -> None:
    """For a command of ours: it goes on in /. In a deleted one even importing torch fails."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


@contextlib.contextmanager
def existing_working_directory() -> Iterator[None]:
    """Within, there is one: / instead of one that has been deleted.

    multiprocessing tells each process that it spawns the working directory, and fails where there is none.
    """
    try:
        os.getcwd()
    except OSError:
        deleted = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        yield
        return
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(deleted)
        os.close(deleted)
