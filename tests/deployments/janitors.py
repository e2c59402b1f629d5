"""As process 1: three engines, one after the other; prints how many janitors are left as zombies.

With `wait`: one engine, which waits.
"""

from __future__ import annotations

import sys
import time

import psutil
from echo import Echo

import mpspmd


def children(what: str) -> list[psutil.Process]:
    """Those that still run it; a zombie runs nothing."""
    return [child for child in psutil.Process().children() if what in str(child.cmdline())]


def zombies() -> int:
    return [child.status() for child in psutil.Process().children()].count("zombie")


if __name__ == "__main__":
    if sys.argv[1:] == ["wait"]:
        engine = mpspmd.Engine(Echo, world_size=1)
        print("ready", flush=True)
        time.sleep(60)
    for _ in range(3):
        with mpspmd.Engine(Echo, world_size=1):
            pass
        end = time.monotonic() + 10
        while children("janitor_process") and time.monotonic() < end:
            time.sleep(0.01)
    print(psutil.Process().pid, zombies())
