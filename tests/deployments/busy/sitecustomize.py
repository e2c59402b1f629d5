"""In each rank, Python starts so many threads before our code begins that few are left for the rank's own.

It does so where this folder is on PYTHONPATH. FREE_THREADS says how many threads stay free.
"""

from __future__ import annotations

import os
import sys
import threading
import time


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
    taken = len(threads) - 1  # the last one was refused
    while len(os.listdir("/proc/self/task")) > 1 + max(0, taken - free):
        time.sleep(0.01)
    time.sleep(0.2)  # until the control group counts them no more


def _wait_for_the_engine() -> None:
    """Until it starts no more threads. It is the ranks' threads that must lack."""
    folder = f"/proc/{os.getppid()}/task"
    before: list[str] = []
    while (now := os.listdir(folder)) != before:
        before = now
        time.sleep(0.3)


if any("spawn_main" in argument for argument in sys.orig_argv):
    _wait_for_the_engine()
    _take_all_but(int(os.environ["FREE_THREADS"]))
