"""Putting off signals while something is half done that they must not interrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

GROUP_SIGNALS = frozenset(
    {
        signal.SIGINT,  # Ctrl-C
        signal.SIGQUIT,  # Ctrl-backslash
        signal.SIGHUP,  # the terminal has closed
        signal.SIGTERM,  # systemd, tini -g, Slurm
        signal.SIGUSR1,  # Slurm, before a job's time is over
        signal.SIGUSR2,
    }
)
"""What is sent to a whole process group or control group: it is for the engine to decide what it means."""


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM are taken when this is left. For the start of a process, which is known by then,
    and for the end of a run.

    SIGINT is blocked too, for a new process inherits that: Ctrl-C must not end it. Blocking alone doesn't
    do here: any other thread may take the signal for the main one.
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


@contextlib.contextmanager
def group_signals_blocked() -> Iterator[None]:
    """For the start of a rank, which inherits that: it takes these signals only when it can tell whether
    they concern it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
