"""Putting off signals while something is half done that they must not interrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM are taken when this is left. For the start of a process, which is known by then,
    and for the end of a run.

    SIGINT is blocked too, for a new process inherits that: Ctrl-C while it imports must not print a
    traceback. Blocking alone doesn't do here: any other thread may take the signal for the main one.
    """
    came: set[int] = set()
    handlers: dict[signal.Signals, Any] = {}
    mask: set[signal.Signals | int] | None = None
    # Each call below may raise what the handler of a signal that has just come does. SIGINT's, which mostly
    # raises, is in force last.
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # None: a handler that isn't Python's. What is ignored stays so, also in a new process.
                if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                    handlers[number] = handler
                    signal.signal(number, lambda taken, frame: came.add(taken))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in handlers:
            if number in came:
                signal.raise_signal(number)
