"""The limits that control groups set to this process: CPU time, memory, and the number of its threads.

A limit holds for a group and for all groups below it. So we read every group from the process's own up to
the one that is mounted. In a container `/proc/self/cgroup` may name a path that isn't visible there. Then
the mounted group is the container's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path, PurePosixPath
from typing import Literal

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
    """For version 2, which has one hierarchy for all controllers, just `cgroup2`."""


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
    """The folders of this process's groups for one controller, its own group first. Some may not exist."""
    path = groups.get(controller)
    mounted = [mount for mount in mounts if controller in mount.controllers]
    for mount in mounted if path is not None else ():
        below = _below(mount.root, str(path))
        if below is not None:
            point = Path(mount.point)
            return [point / below, *(point / parent for parent in below.parents)]
    # No mount here shows the process's group.
    return [Path(mount.point) for mount in mounted[:1]]


def quota_v1(quota_us: str | None, period_us: str | None) -> float | None:
    """Cores' worth of time, from `cpu.cfs_quota_us` and `cpu.cfs_period_us`; None: no limit."""
    quota, period = _number(quota_us), _number(period_us)
    return quota / period if quota is not None and period else None


def quota_v2(cpu_max: str | None) -> float | None:
    """The same from `cpu.max`."""
    quota_us, _, period_us = (cpu_max or "").strip().partition(" ")
    return quota_v1(quota_us, period_us)


def free_bytes(limit: str | None, used: str | None, stat: str | None = None) -> int | None:
    """How many bytes of a limit are still free; None: no limit.

    `stat` is the text of `memory.stat`. The cache of files on disks counts as free: the kernel drops it.
    """
    all_bytes, used_bytes = _number(limit), _number(used)
    if all_bytes is None or used_bytes is None:
        return None
    fields = dict(line.split() for line in (stat or "").splitlines())
    # Version 1 has the sums over the groups below under other names.
    cached = [f"total_{name}" if f"total_{name}" in fields else name for name in _FILE_CACHE]
    return all_bytes - used_bytes + sum(int(fields.get(name, 0)) for name in cached)


def cpu_quota() -> float | None:
    """How many cores' worth of time the control groups of this process allow; None: no limit."""
    v1 = _texts("cpu", 1, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    v2 = _texts("cpu", 2, "cpu.max")
    quotas = [*starmap(quota_v1, v1), *starmap(quota_v2, v2)]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_left() -> int | None:
    """How many bytes this process's control groups let it still take; None: no limit."""
    v1 = _texts("memory", 1, "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    v2 = _texts("memory", 2, "memory.max", "memory.current", "memory.stat")
    return _lowest(starmap(free_bytes, [*v1, *v2]))


def memory_limit() -> int | None:
    """How many bytes this process's control groups may use; None: no limit."""
    texts = _texts("memory", 1, "memory.limit_in_bytes") + _texts("memory", 2, "memory.max")
    limit = _lowest(_number(text) for (text,) in texts)
    # Version 1 has a huge number for no limit.
    return None if limit is None or limit >= 1 << 60 else limit


def pids_limit() -> int | None:
    """How many processes and threads this process's control groups may have; None: no limit."""
    texts = _texts("pids", 1, "pids.max") + _texts("pids", 2, "pids.max")
    return _lowest(_number(text) for (text,) in texts)


class MemoryKiller:
    """Whether the kernel's out-of-memory killer may have ended a process since this object was made."""

    def __init__(self) -> None:
        self._group, self._machine = _oom_kills()

    def note(self) -> str:
        """A note to add to "killed by SIGKILL"; "" if it has killed nothing since."""
        group, machine = _oom_kills()
        if group > self._group:
            limit = memory_limit()
            allowed = "" if limit is None else f" that may use {limit} bytes of memory"
            return (
                f"; the kernel's out-of-memory killer has ended a process of this control group{allowed}: "
                "raise that limit (docker run --memory), or use less memory"
            )
        if machine > self._machine:
            return (
                "; the kernel's out-of-memory killer has ended a process on this machine, perhaps this one "
                "(dmesg tells which): use less memory"
            )
        return ""


def _oom_kills() -> tuple[int, int]:
    """How many processes the kernel's out-of-memory killer has ended: in this process's control group with
    those below it, and on the machine. 0 where the kernel doesn't tell."""
    own = [_texts("memory", 1, "memory.oom_control")[:1], _texts("memory", 2, "memory.events")[:1]]
    group = max((oom_kills_in(text) for texts in own for (text,) in texts), default=0)
    return group, oom_kills_in(_read(Path("/proc/vmstat")))


def oom_kills_in(text: str | None) -> int:
    """The number in the text of `memory.oom_control`, `memory.events` or `/proc/vmstat`."""
    for line in (text or "").splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdecimal():
            return int(number)
    return 0


def _texts(controller: str, version: Literal[1, 2], *names: str) -> list[list[str | None]]:
    """The texts of these files in each of this process's groups. Both versions may be mounted."""
    mounts = parse_mounts(_read(Path("/proc/self/mountinfo")) or "")
    groups = parse_groups(_read(Path("/proc/self/cgroup")) or "")
    found = folders(mounts, groups, controller if version == 1 else _V2)
    return [[_read(folder / name) for name in names] for folder in found]


def _lowest(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _below(root: str, path: str) -> PurePosixPath | None:
    """The part of `path` below `root`; None if it doesn't lie there."""
    whole = PurePosixPath(path)
    # In a control-group namespace the path of a group outside of it begins with `/..`.
    if ".." in whole.parts or not whole.is_relative_to(root):
        return None
    return whole.relative_to(root)


def _unescaped(path: str) -> str:
    r"""The kernel writes a space as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="surrogateescape")
    except OSError:
        return None
