"""What to do if the working directory has been deleted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def leave_a_deleted_working_directory() -> None:
    """For our commands: changes to /. In a deleted directory even `import torch` fails."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


@contextlib.contextmanager
def existing_working_directory() -> Iterator[None]:
    """In the body the working directory is / if it has been deleted.

    multiprocessing tells the working directory to each process that it spawns, and fails if it is deleted.
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
