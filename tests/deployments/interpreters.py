"""Names interpreters for its ranks, the last of which counts: `python interpreters.py PATH…`.

"None" is none.
"""

from __future__ import annotations

import multiprocessing
import sys

import mpspmd


class Worker(mpspmd.Worker):
    pass


if __name__ == "__main__":
    for path in sys.argv[1:]:
        multiprocessing.set_executable(None if path == "None" else path)  # type: ignore[arg-type]
    with mpspmd.Engine(Worker, world_size=1):
        print("ok")
