"""Signals that end a run early: from the user, and from the death of a rank."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

import psutil

from benchmarks.errors import BenchmarkError


class Interrupted(BaseException):
    """SIGINT or SIGTERM has come."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class _State:
    """Signals are the whole process's, and so is this. Main thread."""

    received: int | None = None
    deferrals = 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise Interrupted in the main thread."""

    def interrupt(signum: int, frame: object) -> None:
        _State.received = signum
        if not _State.deferrals:
            raise Interrupted(signum)

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in old:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, nothing raises Interrupted; it is raised after. A blocked signal wouldn't do: another
    thread gets it, and Python runs its handler in the main thread all the same.
    """
    _State.deferrals += 1
    try:
        yield
    finally:
        _State.deferrals -= 1
    raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Interrupted again, if what was running has swallowed it: imports and finalizers may."""
    if _State.received is not None and not _State.deferrals:
        raise Interrupted(_State.received)


@contextlib.contextmanager
def deaths_raise(pids: Sequence[int], name: str, look_s: float = 0.5) -> Iterator[None]:
    """Within, the end of one of these children raises BenchmarkError in the main thread, up
    to `look_s` later.

    So waits for a reply need no timeout in what is measured. A timer's signal does it, and not
    SIGCHLD: a signal that comes just before the process goes to sleep in C doesn't wake it, and is
    acted on only after the next one. The same goes for Ctrl-C.
    """
    watching = True

    def look(signum: int = 0, frame: object = None) -> None:
        nonlocal watching
        for pid in pids if watching else ():
            if (ending := _ending(pid)) is not None:
                watching = False  # the clean-up ends the others
                raise BenchmarkError(f"a rank of {name} (pid {pid}) ended: {ending}")

    old = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, look_s, look_s)
    try:
        yield
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _ending(pid: int) -> str | None:
    """How a child has ended; it can still be waited for. None if it lives."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # somebody else started it, or has waited for it
        return None if psutil.pid_exists(pid) else "nobody knows how"
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return f"killed by {signal.Signals(result.si_status).name}"
