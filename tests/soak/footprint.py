"""What a process takes of the machine: it must not grow with time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

_ARENA_BYTES = 1 << 20  # CPython 3.10 and later


@dataclass(frozen=True)
class Footprint:
    rss_kib: int
    descriptors: int
    threads: int
    mappings: int


def _has_arenas(mapping: str) -> bool:
    """A line of /proc/PID/maps. Python's heap grows by arenas, some side by side; RSS tells if it
    doesn't stop."""
    addresses, *_, inode = mapping.split()
    first, end = (int(address, 16) for address in addresses.split("-"))
    return inode == "0" and (end - first) % _ARENA_BYTES == 0


def footprint(pid: int | None = None) -> Footprint:
    """Of this process, or of another one of this user."""
    folder = f"/proc/{'self' if pid is None else pid}"
    with open(f"{folder}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    with open(f"{folder}/maps") as maps:
        mappings = sum(not _has_arenas(line) for line in maps)
    descriptors = len(os.listdir(f"{folder}/fd"))
    return Footprint(int(fields["VmRSS"].split()[0]), descriptors, int(fields["Threads"]), mappings)


def growth(footprints: Sequence[Footprint]) -> Footprint:
    """From the first third's most to the last third's most: what comes and goes doesn't count."""
    third = max(1, len(footprints) // 3)
    first, last = footprints[:third], footprints[-third:]
    return Footprint(
        *(
            max(getattr(each, field) for each in last) - max(getattr(each, field) for each in first)
            for field in Footprint.__dataclass_fields__
        )
    )
