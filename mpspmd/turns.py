"""How threads wait for each other where one of them may be the main thread.

There the handler of a signal may raise in any call. In a method of threading.Event or threading.Condition
that may leave a lock locked, and then all other threads wait for it. Here each thread waits for a lock of
its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

Turns: TypeAlias = "list[threading.Lock]"
"""A lock for each thread that waits. Whoever wakes the thread releases it."""

_SLICE_S = 0.2


def wait_for_turn(turns: Turns, must_wait: Callable[[], bool], until: float | None) -> bool:
    """Waits until `must_wait()` is false, and returns True. Returns False if the time `until`, of
    time.monotonic(), comes first."""
    turn = threading.Lock()
    turn.acquire()
    try:
        turns.append(turn)
        # Check after appending: whoever lets others go on after this releases `turn`.
        while must_wait():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            # In slices: a signal's handler may have kept the other thread from releasing it, and the kernel
            # may have given the main thread's signal to another thread.
            turn.acquire(timeout=_SLICE_S if left is None else min(left, _SLICE_S))
        return True
    finally:
        turns.remove(turn)  # at once: a signal's handler may raise in any other call


def let_others_go_on(turns: Turns) -> None:
    """Wakes all threads that wait. Each sees for itself whether it must wait on."""
    for turn in list(turns):
        let_go_on(turn)


class Flag:
    """What threading.Event is. Any thread may set it, and wait for it."""

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: Turns = []

    def set(self) -> None:
        self.is_set = True
        let_others_go_on(self._waiting)

    def clear(self) -> None:
        self.is_set = False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns when it is set, or after so many seconds; whether it is set."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return self.is_set or wait_for_turn(self._waiting, lambda: not self.is_set, until)


def let_go_on(turn: threading.Lock) -> None:
    """Wakes the thread that acquires it."""
    with contextlib.suppress(RuntimeError):  # it has been released already
        turn.release()
