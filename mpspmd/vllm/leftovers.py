"""Files of vLLM's that outlive the processes that made them."""

from __future__ import annotations

import contextlib
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")


def sweep(distributed_init_method: str) -> None:
    """Removes what vLLM's ranks of this run have left. Any process of the run, any number of times.

    The CPU groups' shared memory is named after the init method, which is unique to the run; so is the
    file through which the ranks have met.
    """
    rendezvous = Path(distributed_init_method.removeprefix("file://"))
    is_file = distributed_init_method.startswith("file://")
    identity = rendezvous.name if is_file else distributed_init_method.split(":")[-1]
    if is_file:
        _remove(rendezvous)
        for path in _SHARED_MEMORY.glob(f"{identity}-*"):
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
