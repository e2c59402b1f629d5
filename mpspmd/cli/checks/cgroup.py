"""What the control group of this process allows it."""

from __future__ import annotations

from pathlib import Path


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group gives, if it limits it."""
    for quota_file, period_file in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ):
        text = _cgroup(quota_file)
        if text is None:
            continue
        parts = text.split() if period_file is None else [text, _cgroup(period_file) or "100000"]
        if parts[0] not in ("max", "-1"):
            return int(parts[0]) / int(parts[1])
    return None


def memory_left() -> int | None:
    for limit_file, use_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, use = _cgroup(limit_file), _cgroup(use_file)
        if limit and use and limit.isdecimal():
            return int(limit) - int(use)
    return None


def _cgroup(name: str) -> str | None:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return None
