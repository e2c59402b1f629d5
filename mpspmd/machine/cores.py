"""How many cores this process may use."""

from __future__ import annotations

import os

from mpspmd.machine.cgroup import cpu_quota


def usable_cores() -> int:
    """As many as the calling thread may run on, and no more than its control group gives it the time of.

    Both may change while a process runs: `docker update --cpus`, or Kubernetes' CPU manager, which gives a
    running container other cores.
    """
    return count_cores(len(os.sched_getaffinity(0)), cpu_quota())


def count_cores(allowed: int, quota: float | None) -> int:
    """Whole cores: who has the time of one and a half can't keep two busy."""
    return allowed if quota is None else max(1, min(allowed, int(quota)))
