"""SharedMemory: what /dev/shm holds at one moment, to compare with it later."""

from __future__ import annotations

import os
from pathlib import Path

SHM = Path("/dev/shm")


class SharedMemory:
    """Its files, and the bytes in use. Segments have no name, so only the bytes tell of them.

    What this process itself has mapped doesn't count: an engine's rings stay mapped until the engine is
    collected, and pytest refers to it until the test's report is written.
    """

    def __init__(self) -> None:
        self.files = set(SHM.iterdir())
        mapped = _mapped_bytes()
        filesystem = os.statvfs(SHM)
        self._used = (filesystem.f_blocks - filesystem.f_bfree) * filesystem.f_frsize - mapped

    def added(self) -> list[str]:
        """What has been added since, each in words."""
        now = SharedMemory()
        added = [f"file {path}" for path in sorted(now.files - self.files)]
        # What others do in /dev/shm is a few pages; our smallest ring has sixteen.
        if (more := now._used - self._used) >= 1 << 16:
            added.append(f"{more} bytes of {SHM}")
        return added


def _mapped_bytes() -> int:
    """Bytes of /dev/shm that this process has mapped. A ring's data is mapped twice."""
    ends: dict[str, int] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, offset, _, inode, *path = line.split(maxsplit=5)
        if path and path[0].startswith(f"{SHM}/"):
            begin, end = (int(address, 16) for address in addresses.split("-"))
            ends[inode] = max(ends.get(inode, 0), int(offset, 16) + end - begin)
    return sum(ends.values())
