"""A rank whose script has started so many threads that few are left for the rank's own.

usage: busy_rank.py N: so many threads stay free.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

from echo import Echo, main

import mpspmd


def _take_all_but(free: int) -> None:
    """They end with the process."""
    threads: list[threading.Thread] = []
    ends = [threading.Event() for _ in range(free)]
    try:
        while True:
            end = ends[len(threads)] if len(threads) < free else threading.Event()
            threads.append(threading.Thread(target=end.wait, daemon=True))
            threads[-1].start()
    except RuntimeError:
        pass
    for end in ends:
        end.set()
    time.sleep(0.2)


if multiprocessing.current_process().name.startswith("mpspmd-rank-"):
    _take_all_but(int(sys.argv[1]))

if __name__ == "__main__":
    mpspmd.run(Echo, main, world_size=1)
