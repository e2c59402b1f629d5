"""Turns: how a thread waits until it may do what one thread at a time does: read replies, or send.

No lock is held by whoever has its turn: a signal's handler that raises might leave it locked.
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
            # In slices: a signal's handler may have kept the other thread from releasing it.
            turn.acquire(timeout=_SLICE_S if left is None else min(left, _SLICE_S))
        return True
    finally:
        turns.remove(turn)  # at once: a signal's handler may raise in any other call


def let_others_go_on(turns: Turns) -> None:
    """Wakes all threads that wait. Each sees for itself whether it must wait on."""
    for turn in list(turns):
        let_go_on(turn)


def let_go_on(turn: threading.Lock) -> None:
    """Wakes the thread that acquires it."""
    with contextlib.suppress(RuntimeError):  # it has been released already
        turn.release()
