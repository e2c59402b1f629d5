"""What the control groups of this process allow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """Cores' worth of time that the control groups give, if they limit it."""
    quotas = []
    for group in _groups("cpu"):
        if text := _read(group / "cpu.max"):
            quota, period = text.split()
        else:
            quota = _read(group / "cpu.cfs_quota_us") or "-1"
            period = _read(group / "cpu.cfs_period_us") or "100000"
        if quota not in ("max", "-1"):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_left() -> int | None:
    """Bytes that may still be taken, if they are limited. What caches files counts as free."""
    left = []
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit and used and limit.isdecimal():
            left.append(int(limit) - int(used) + _cache_bytes(group))
    return min(left, default=None)


def pids_limit() -> int | None:
    """How many processes and threads there may be, if they are limited."""
    limits = [_read(group / "pids.max") for group in _groups("pids")]
    return min((int(limit) for limit in limits if limit and limit.isdecimal()), default=None)


def _cache_bytes(group: Path) -> int:
    """Of files on disks, of this group and those within."""
    fields = dict(line.split() for line in (_read(group / "memory.stat") or "").splitlines())
    names = ("inactive_file", "active_file")
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in names)


def _groups(controller: str) -> Iterator[Path]:
    """The folders that limit this process: its own group's, and those of the groups around it."""
    for mount, group in memberships(_read(Path("/proc/self/cgroup")) or "", controller):
        for each in (group, *group.parents):
            # In a container its own group may be what is mounted, though it goes by its name outside.
            if (folder := _ROOT / mount / each.relative_to("/")).is_dir():
                yield folder


def memberships(text: str, controller: str) -> list[tuple[str, PurePosixPath]]:
    """Of a text in the format of /proc/self/cgroup: where below /sys/fs/cgroup the controller may be
    mounted, and this process's group there."""
    found = []
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        group = PurePosixPath("/", path.removesuffix(" (deleted)").lstrip("/"))
        if number == "0":  # version 2
            found += [("", group), ("unified", group)]
        elif controller in controllers.split(","):
            found += [(controller, group), (controllers, group)]
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
