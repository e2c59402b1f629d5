"""Files of vLLM that may stay when the processes that made them are gone."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable

_FILES = {"semaphore": "/dev/shm/sem.{}", "shared_memory": "/dev/shm/{}"}
"""Where the kernel shows a named object, by the type under which multiprocessing's tracker registers it."""


def file_of(name: str, rtype: str) -> str:
    return _FILES[rtype].format(name.removeprefix("/"))


def leftovers(distributed_init_method: str) -> list[str]:
    """Glob patterns of the files that vLLM's ranks of this run may leave.

    The init method is unique to the run. It names the file through which the ranks meet, and vLLM names the
    shared memory of CPU groups after it.
    """
    if not distributed_init_method.startswith("file://"):
        return []
    rendezvous = distributed_init_method.removeprefix("file://")
    name = glob.escape(os.path.basename(rendezvous))
    return [glob.escape(rendezvous), f"/dev/shm/{name}-*"]


def sweep(distributed_init_method: str) -> None:
    """Removes these files when a run ends in order. Any process of the run, any number of times."""
    for pattern in leftovers(distributed_init_method):
        remove(glob.glob(pattern))


def remove(files: Iterable[str]) -> None:
    """Removes the files that are still there."""
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(file)
