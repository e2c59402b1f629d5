"""Exit statuses in words."""

from __future__ import annotations

import signal

PENDING = "exit status pending: the kernel still frees its memory"
"""The process has ended, but its parent can't have the exit status yet."""

TAKEN = "its exit status was taken by another part of this program"
"""Another part of the program has waited for this child, or the kernel has dropped its exit status because
the program ignores SIGCHLD."""

ONLY_THE_LAUNCHER_KNOWS = "only its launcher knows its exit status"


def describe_exit(code: int) -> str:
    """`code` is minus the number of the signal if a signal has ended the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
