"""An engine whose ranks use GPUs: prints, as JSON, what the process of the engine has of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import mpspmd
from benchmarks.nvidia import compute_pids


def make_worker(ctx: mpspmd.RankContext) -> Any:
    """On a rank. Only ranks import torch."""
    from device_worker import DeviceWorker

    return DeviceWorker(ctx)


def open_devices() -> list[str]:
    descriptors = Path("/proc/self/fd").iterdir()
    return [name for each in descriptors if "nvidia" in (name := os.path.realpath(each))]


def main() -> None:
    with mpspmd.Engine(make_worker, world_size=2) as engine:
        devices = engine.collective_rpc("device_name")
        found = {
            "devices": devices,
            "engine": os.getpid(),
            "ranks": engine.pids,
            "with a context": sorted(compute_pids()),
            "open devices": open_devices(),
            "driver is mapped": "libcuda.so" in Path("/proc/self/maps").read_text(),
            "torch is imported": "torch" in sys.modules,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
