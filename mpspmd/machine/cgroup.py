"""The limits that control groups set to this process: CPU time, memory, and the number of its threads.

A limit holds for a group and for all groups below it, so every group is looked at, from the process's own
up to the one that is mounted. In a container, `/proc/self/cgroup` may name a path that isn't visible there:
then the container's own group is the one that is mounted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_V2 = "cgroup2"
_FILE_CACHE = ("inactive_file", "active_file")


@dataclass(frozen=True)
class Mount:
    """One mounted hierarchy of control groups."""

    root: str
    """The group that is mounted, as `/proc/self/cgroup` would name it."""
    point: str
    """Where it is mounted."""
    controllers: frozenset[str]
    """What it controls; for version 2, which has one hierarchy for all, just `cgroup2`."""


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The control groups in the text of `/proc/self/mountinfo`."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", _V2):
            continue
        controllers = [_V2] if kind[0] == _V2 else kind[2].split(",")
        mounts.append(Mount(_unescaped(fields[3]), _unescaped(fields[4]), frozenset(controllers)))
    return mounts


def parse_groups(text: str) -> dict[str, str]:
    """The text of `/proc/self/cgroup`: the group's path by controller, `cgroup2` for version 2."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        path = path.removesuffix(" (deleted)")
        if path.startswith("/"):
            groups |= dict.fromkeys(controllers.split(",") if controllers else [_V2], path)
    return groups


def folders(mounts: list[Mount], groups: dict[str, str], controller: str) -> list[Path]:
    """Where to look for this process's limits of one controller, its own group first.

    Not all of them need exist.
    """
    path = groups.get(controller)
    mounted = [mount for mount in mounts if controller in mount.controllers]
    for mount in mounted if path is not None else ():
        below = _below(mount.root, str(path))
        if below is not None:
            point = Path(mount.point)
            return [point / below, *(point / parent for parent in below.parents)]
    # The process's group lies outside of all that is mounted here.
    return [Path(mount.point) for mount in mounted[:1]]


def quota_v1(quota_us: str | None, period_us: str | None) -> float | None:
    """Cores' worth of time that `cpu.cfs_quota_us` and `cpu.cfs_period_us` give; None: no limit."""
    quota_us, period_us = (quota_us or "").strip(), (period_us or "").strip()
    if not quota_us.isdecimal() or not period_us.isdecimal() or int(period_us) == 0:
        return None
    return int(quota_us) / int(period_us)


def quota_v2(cpu_max: str | None) -> float | None:
    """The same of `cpu.max`."""
    quota_us, _, period_us = (cpu_max or "").strip().partition(" ")
    return quota_v1(quota_us, period_us)


def left(limit: str | None, used: str | None, stat: str | None = None) -> int | None:
    """Bytes that may still be used of a limit; None: no limit.

    `stat` is the text of `memory.stat`. What caches files on disks counts as free: the kernel drops it.
    """
    limit, used = (limit or "").strip(), (used or "").strip()
    if not limit.isdecimal() or not used.isdecimal():
        return None
    fields = dict(line.split() for line in (stat or "").splitlines())
    # Version 1 has the sums over all groups below under names of their own.
    cached = [f"total_{name}" if f"total_{name}" in fields else name for name in _FILE_CACHE]
    return int(limit) - int(used) + sum(int(fields.get(name, 0)) for name in cached)


def cpu_quota() -> float | None:
    """Cores' worth of time that the control groups of this process give it; None: no limit."""
    v1, v2 = _own_folders("cpu")
    quotas = [quota_v1(_read(g / "cpu.cfs_quota_us"), _read(g / "cpu.cfs_period_us")) for g in v1]
    quotas += [quota_v2(_read(group / "cpu.max")) for group in v2]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_left() -> int | None:
    """Bytes that the control groups of this process let it still take; None: no limit."""
    v1, v2 = _own_folders("memory")
    names_v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    names_v2 = ("memory.max", "memory.current", "memory.stat")
    amounts = [left(*(_read(group / name) for name in names_v1)) for group in v1]
    amounts += [left(*(_read(group / name) for name in names_v2)) for group in v2]
    return min((amount for amount in amounts if amount is not None), default=None)


def memory_limit() -> int | None:
    """Bytes that the control groups of this process may use; None: no limit."""
    v1, v2 = _own_folders("memory")
    limits = [_number(_read(group / "memory.limit_in_bytes")) for group in v1]
    limits += [_number(_read(group / "memory.max")) for group in v2]
    # Version 1 has a huge number for no limit.
    return min((limit for limit in limits if limit is not None and limit < 1 << 60), default=None)


class OomKills(NamedTuple):
    """How many processes the kernel's out-of-memory killer has ended; 0 where that isn't told."""

    group: int
    """Of this process's control group and those below it."""
    machine: int


def oom_kills() -> OomKills:
    v1, v2 = _own_folders("memory")
    texts = [_read(group / "memory.oom_control") for group in v1[:1]]
    texts += [_read(group / "memory.events") for group in v2[:1]]
    return OomKills(
        max(map(oom_kills_in, texts), default=0), oom_kills_in(_read(Path("/proc/vmstat")))
    )


def oom_kills_in(text: str | None) -> int:
    """The number in the text of `memory.oom_control`, `memory.events` or `/proc/vmstat`."""
    for line in (text or "").splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdecimal():
            return int(number)
    return 0


def pids_limit() -> int | None:
    """How many processes and threads this process's control groups may have; None: no limit."""
    groups = [group for groups in _own_folders("pids") for group in groups]
    limits = [_number(_read(group / "pids.max")) for group in groups]
    return min((limit for limit in limits if limit is not None), default=None)


def _own_folders(controller: str) -> tuple[list[Path], list[Path]]:
    """Of version 1 and of version 2: a machine may have both mounted."""
    mounts = parse_mounts(_read(Path("/proc/self/mountinfo")) or "")
    groups = parse_groups(_read(Path("/proc/self/cgroup")) or "")
    return folders(mounts, groups, controller), folders(mounts, groups, _V2)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _below(root: str, path: str) -> PurePosixPath | None:
    """The part of `path` below `root`, if it is there."""
    whole = PurePosixPath(path)
    # Seen from a control-group namespace, a group outside of it begins with `/..`.
    if ".." in whole.parts or not whole.is_relative_to(root):
        return None
    return whole.relative_to(root)


def _unescaped(path: str) -> str:
    r"""As it is: the kernel writes a space as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="surrogateescape")
    except OSError:
        return None
