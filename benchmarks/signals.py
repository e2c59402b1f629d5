"""Ends a run early: at a signal from the user, and at the death of a rank."""

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
    """One for the whole process, as signal handlers are. Main thread."""

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
    """Within, nothing raises Interrupted; it is raised afterwards.

    Blocking the signals isn't enough: another thread would take them, and Python would still run the
    handler in the main thread.
    """
    _State.deferrals += 1
    try:
        yield
    finally:
        _State.deferrals -= 1
    raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Raises Interrupted again: code such as an import or a finalizer may have swallowed it."""
    if _State.received is not None and not _State.deferrals:
        raise Interrupted(_State.received)


@contextlib.contextmanager
def deaths_raise(pids: Sequence[int], name: str, poll_s: float = 0.5) -> Iterator[None]:
    """Within, the end of one of these children raises BenchmarkError in the main thread, up to `poll_s`
    later.

    So the measured code can wait for replies without a timeout. A timer polls, because SIGCHLD isn't
    enough: a signal that comes just before the process sleeps in C doesn't wake it, and is handled only
    after the next signal. That goes for Ctrl-C too.
    """
    watching = True

    def poll(signum: int = 0, frame: object = None) -> None:
        nonlocal watching
        for pid in pids if watching else ():
            if (ending := _ending(pid)) is not None:
                watching = False  # the clean-up will end the others
                raise BenchmarkError(f"a rank of {name} (pid {pid}) ended: {ending}")

    old = signal.signal(signal.SIGALRM, poll)
    signal.setitimer(signal.ITIMER_REAL, poll_s, poll_s)
    try:
        yield
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _ending(pid: int) -> str | None:
    """How a child has ended, without reaping it. None if it runs."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # not our child, or reaped already
        return None if psutil.pid_exists(pid) else "nobody knows how"
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return f"killed by {signal.Signals(result.si_status).name}"
