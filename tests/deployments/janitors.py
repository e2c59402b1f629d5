"""As process 1: three engines, one after the other; prints how many janitors are left as zombies.

With `wait`: one engine, which waits.
"""

from __future__ import annotations

import contextlib
import sys
import time

import psutil
from echo import Echo

import mpspmd


def runs() -> bool:
    """Whether a janitor does; a zombie runs nothing."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "janitor_process" in str(child.cmdline()):
                return True
    return False


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
        while runs() and time.monotonic() < end:
            time.sleep(0.01)
    print(psutil.Process().pid, zombies())
