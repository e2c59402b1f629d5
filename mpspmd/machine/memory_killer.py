"""MemoryKiller: whether the kernel's out-of-memory killer may have ended a process."""

from __future__ import annotations

from mpspmd.machine.cgroup import memory_limit, oom_kills


class MemoryKiller:
    """Remembers how many processes it has killed so far."""

    def __init__(self) -> None:
        self._before = oom_kills()

    def note(self) -> str:
        """A note to add to "killed by SIGKILL"; "" if it has killed nothing since."""
        now = oom_kills()
        if now.group > self._before.group:
            limit = memory_limit()
            allowed = "" if limit is None else f" that may use {limit} bytes of memory"
            return (
                f"; the kernel's out-of-memory killer has ended a process of this control group{allowed}: "
                "raise that limit (docker run --memory), or use less memory"
            )
        if now.machine > self._before.machine:
            return (
                "; the kernel's out-of-memory killer has ended a process on this machine, perhaps this one "
                "(dmesg tells which): use less memory"
            )
        return ""
