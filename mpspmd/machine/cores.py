"""How many cores this process may use."""

from __future__ import annotations

import os

from mpspmd.machine.cgroup import cpu_quota


def usable_cores() -> int:
    """As many as the calling thread may run on, and as the CPU quota of its control group is worth.

    Both may change while a process runs, by `docker update --cpus` or by Kubernetes' CPU manager.
    """
    return count_cores(len(os.sched_getaffinity(0)), cpu_quota())


def count_cores(allowed: int, quota: float | None) -> int:
    """In whole cores: a quota of 1.5 cores doesn't keep two cores busy."""
    return allowed if quota is None else max(1, min(allowed, int(quota)))
