"""NVIDIA's GPUs, as `nvidia-smi` tells of them. It asks the driver (NVML), and needs no CUDA context."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from typing import NamedTuple

_TIMEOUT_S = 30


class Gpu(NamedTuple):
    name: str
    driver: str
    memory_mib: int
    used_mib: int


def gpus() -> list[Gpu]:
    """All of the machine. None where there is no driver, or where it finds no GPU."""
    rows = _query("--query-gpu=name,driver_version,memory.total,memory.used")
    return [Gpu(name, driver, _mib(total), _mib(used)) for name, driver, total, used in rows]


def _mib(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # "[N/A]" where a GPU is shared out in parts


def compute_pids() -> set[int]:
    """The processes that have a CUDA context, with the numbers that the driver knows them by. In a
    container these may be other numbers than the processes' own, or none."""
    return {int(pid) for (pid,) in _query("--query-compute-apps=pid")}


def _query(what: str) -> list[list[str]]:
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return cells(done.stdout) if done.returncode == 0 else []


def cells(text: str) -> list[list[str]]:
    """The cells of each line of nvidia-smi's CSV."""
    return [
        [cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()
    ]


class BusyShare:
    """Samples how busy the GPUs are until it is closed: which share of the time they ran a kernel."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        self._smi = subprocess.Popen([*command, "--loop-ms=200"], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._smi.stdout is not None
        for line in self._smi.stdout:
            if line.strip().isdecimal():
                self._samples.append((time.perf_counter(), float(line)))

    def between(self, began: float, ended: float) -> float | None:
        """The mean in percent over all GPUs, times as of time.perf_counter(). None without a sample."""
        found = [percent for at, percent in self._samples if began <= at <= ended]
        return statistics.fmean(found) if found else None

    def close(self) -> None:
        self._smi.terminate()
        self._smi.wait()
        self._thread.join()
