"""Orphan: a process that the kernel has made a child of process 1, which may be this program."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from mpspmd.processes.proc import read_stat


class Orphan(NamedTuple):
    """Known by its pid and the time of its start, because another process may get the pid later."""

    pid: int
    began: int

    @classmethod
    def running(cls, pid: int) -> Orphan | None:
        """None when there is no such process, or when /proc doesn't show it."""
        stat = read_stat(pid)
        return cls(pid, stat.began) if stat else None

    def reap(self) -> bool:
        """Reaps it if it has ended and is this process's child. Returns whether nothing is left to reap."""
        stat = read_stat(self.pid)
        if stat is None or stat.began != self.began:
            return True
        # No other process can get this pid before the parent, which is this process, has reaped it.
        if stat.state == "Z" and stat.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return True
        return False
