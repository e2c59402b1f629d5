"""Putting off signals while something is half done that they must not interrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM are taken when this is left. For the start of a process, which is known by then.

    SIGINT is blocked too, for a new process inherits that: Ctrl-C while it imports must not print a
    traceback. Blocking alone doesn't do here: any other thread may take the signal for the main one.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                # None: a handler that isn't Python's.
                if (handler := signal.getsignal(number)) is not None:
                    handlers[number] = handler
                    signal.signal(number, lambda taken, frame: came.append(taken))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for taken in came:
            signal.raise_signal(taken)
