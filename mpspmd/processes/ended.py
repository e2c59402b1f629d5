"""Ended: a process that may become a child of this one, and that nobody waits for."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from mpspmd.processes.process import read_stat


class Ended(NamedTuple):
    """Known by its number and by when it began: its number alone may be another's by now."""

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> Ended | None:
        """The process that runs; None when there is none, or when /proc doesn't show it."""
        stat = read_stat(pid)
        return cls(pid, stat.began) if stat else None

    def reap(self) -> bool:
        """Takes its exit status if it has ended and is a child. Whether there is nothing left to take."""
        stat = read_stat(self.pid)
        if stat is None or stat.began != self.began:
            return True
        # While this process is its parent, and hasn't waited for it, nobody else gets its number.
        if stat.state == "Z" and stat.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return True
        return False
