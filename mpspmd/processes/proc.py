"""What the kernel shows of a process in /proc/PID."""

from __future__ import annotations

import contextlib
import signal
from typing import Literal, NamedTuple


class Stat(NamedTuple):
    """Some fields of /proc/PID/stat."""

    state: str
    """One letter: Z for a zombie, X for a process that is gone."""
    parent: int
    began: int
    """When it was started, in clock ticks since the machine was."""
    status: int
    """Its exit status, as waitpid() has it. The kernel sets this while the process is still ending."""


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process, or no /proc."""
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        # The program's name, in parentheses, may itself have spaces and parentheses.
        fields = file.read().rpartition(")")[2].split()
        return Stat(fields[0], int(fields[1]), int(fields[19]), int(fields[49]))
    return None


def caught_signals(pid: int | Literal["self"]) -> frozenset[int] | None:
    """The signals that a process has handlers for, also those that Python didn't install, such as
    faulthandler's. None when there is no such process, or no /proc."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            if line.startswith("SigCgt:"):
                mask = int(line.split()[1], 16)
                return frozenset(n for n in signal.valid_signals() if mask >> (n - 1) & 1)
    return None
