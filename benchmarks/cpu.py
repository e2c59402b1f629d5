"""Usage: the CPU time of a process, and how often it was switched out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path
from typing import NamedTuple, Self


class Usage(NamedTuple):
    """Of all threads of a process, since its start."""

    cpu_ns: int
    switches: int
    """Context switches, voluntary or not, of the threads that still run."""

    @classmethod
    def of(cls, pid: int) -> Self:
        return cls(_cpu_ns(pid), _switches(pid))


def _cpu_ns(pid: int) -> int:
    """Nanoseconds; /proc/PID/stat has only hundredths of a second. OSError if there is no such process."""
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, f"the CPU clock of process {pid}: {os.strerror(error)}")
    return time.clock_gettime_ns(clock.value)


def _switches(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.rpartition(":")[2])
    return total
