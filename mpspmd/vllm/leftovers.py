"""Files of vLLM's that may outlive the processes that made them."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterable
from multiprocessing import resource_tracker
from typing import Any

_FILES = {"semaphore": "/dev/shm/sem.{}", "shared_memory": "/dev/shm/{}"}
"""Where the kernel shows what multiprocessing names, by the type that its tracker knows."""


def file_of(name: str, rtype: str) -> str:
    return _FILES[rtype].format(name.removeprefix("/"))


def leftovers(distributed_init_method: str) -> list[str]:
    """Patterns of what vLLM's ranks of a run may leave.

    The CPU groups' shared memory is named after the init method, which is unique to the run; so is the
    file through which the ranks have met.
    """
    if not distributed_init_method.startswith("file://"):
        return []
    rendezvous = distributed_init_method.removeprefix("file://")
    name = glob.escape(os.path.basename(rendezvous))
    return [glob.escape(rendezvous), f"/dev/shm/{name}-*"]


def sweep(distributed_init_method: str) -> None:
    """Removes it, where the run ends in order. Any process of the run, any number of times."""
    for pattern in leftovers(distributed_init_method):
        remove(glob.glob(pattern))


def remove(files: Iterable[str]) -> None:
    """Those that are still there."""
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(file)


def hand_over_tracking(remove_at_end: Callable[[str], None]) -> list[str]:
    """What this process makes from now on is no longer told to multiprocessing's tracker.

    The tracker warns about each thing that a killed process has left, and Ctrl-C kills vLLM's processes.
    Shared memory that a rank only attaches to is not registered at all: see rank/attaching.py.
    Returns the shared memory's files that it has made and that are still there, as they come and go: a rank
    that leaves by itself removes them.
    """
    shared_memory: list[str] = []

    def register(name: Any, rtype: str) -> None:
        file = file_of(name, rtype)
        remove_at_end(file)
        if rtype == "shared_memory":
            shared_memory.append(file)

    def unregister(name: Any, rtype: str) -> None:
        # From now on another program may have a file of that name. The janitor knows which one is meant.
        with contextlib.suppress(ValueError):
            shared_memory.remove(file_of(name, rtype))

    resource_tracker.register = register
    resource_tracker.unregister = unregister
    return shared_memory
