"""Files of vLLM's that may outlive the processes that made them."""

from __future__ import annotations

import contextlib
import glob
import os


def leftovers(distributed_init_method: str) -> list[str]:
    """Patterns of what vLLM's ranks of a run may leave.

    The CPU groups' shared memory is named after the init method, which is unique to the run; so is the
    file through which the ranks have met.
    """
    if not distributed_init_method.startswith("file://"):
        return []
    rendezvous = distributed_init_method.removeprefix("file://")
    return [rendezvous, f"/dev/shm/{os.path.basename(rendezvous)}-*"]


def sweep(distributed_init_method: str) -> None:
    """Removes it, where the run ends in order. Any process of the run, any number of times."""
    for pattern in leftovers(distributed_init_method):
        for path in glob.glob(pattern):
            with contextlib.suppress(OSError):
                os.unlink(path)
