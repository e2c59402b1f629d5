"""Usage: what the kernel tells of a running process."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    state: str
    """The kernel's word: running, sleeping, disk-sleep, stopped, tracing-stop."""
    cpu_s: float
    """The CPU time that the process has used, in seconds."""

    @classmethod
    def of(cls, pid: int) -> Usage | None:
        """None when there is no such process."""
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            return cls(process.status(), float(times.user + times.system))
        except psutil.Error:
            return None
