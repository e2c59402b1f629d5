"""Notice: a line of the log that nothing of importance waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mpspmd.threads import start_thread

_MOMENT_S = 0.2
_MOST_STUCK = 16

_unfinished: list[threading.Thread] = []


def notice(log: Callable[..., None], *words: object, **options: Any) -> None:
    """Calls `log`, a logger's method, in a thread of its own, and waits for it for a moment only.

    Standard error may be a pipe that nobody reads any more. When it is full, a write waits for ever, and so
    does each thread that logs. The end of a run must not wait for that. Lines are lost when too many of
    them wait already.
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
