"""notice(): logs a line without waiting for whoever reads the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mpspmd.threads import start_thread

_MOMENT_S = 0.2
_MOST_STUCK = 16

_unfinished: list[threading.Thread] = []


def notice(log: Callable[..., None], *words: object, **options: Any) -> None:
    """Calls `log`, a logger's method, in a thread of its own, and waits a moment for it.

    Standard error may be a full pipe that nobody reads. Then a write to it never returns, and the end of a
    run must not wait for it. If too many lines wait already, this drops the line.
    """
    global _unfinished
    _unfinished = stuck = [thread for thread in _unfinished if thread.is_alive()]
    if len(stuck) >= _MOST_STUCK:
        return
    try:
        thread = start_thread(log, *words, name="mpspmd-log", **options)
    except RuntimeError:  # no more threads can be had
        log(*words, **options)
        return
    thread.join(0.0 if stuck else _MOMENT_S)
    if thread.is_alive():
        stuck.append(thread)
