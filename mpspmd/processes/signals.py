"""Putting off signals while something is half done that they must not interrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from mpspmd.threads import SYNCHRONOUS_SIGNALS, signals_blocked

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

STACK_SIGNAL = signal.SIGRTMIN + 7
"""By which an engine asks a rank for its stacks."""

# SIGCHLD tells of a process's own children, and Python ignores SIGPIPE.
_OWN = SYNCHRONOUS_SIGNALS | {signal.SIGCHLD, signal.SIGPIPE}


def signals_of_engine() -> frozenset[int]:
    """What a rank leaves to its engine, which this process is: GROUP_SIGNALS, and what it has handlers for.
    A rank has none, and would die of them."""
    return GROUP_SIGNALS | (caught() - _OWN)


def caught() -> frozenset[int]:
    """The signals that this process has handlers for, also those of which Python doesn't know, such as
    faulthandler's."""
    numbers = signal.valid_signals()
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                mask = int(line.split()[1], 16)
                return frozenset(number for number in numbers if mask >> (number - 1) & 1)
    return frozenset(number for number in numbers if callable(signal.getsignal(number)))


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM are taken when this is left. For the start of a process, which is known by then,
    and for the end of a run.

    SIGINT is blocked too, for a new process inherits that: Ctrl-C must not end it. Blocking alone doesn't
    do here: any other thread may take the signal for the main one.
    """
    came: set[int] = set()
    handlers: dict[signal.Signals, Any] = {}
    # Each call below may raise what the handler of a signal that has just come does. SIGINT's, which mostly
    # raises, is in force last.
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # None: a handler that isn't Python's. What is ignored stays so, also in a new process.
                if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                    handlers[number] = handler
                    signal.signal(number, lambda taken, frame: came.add(taken))
        with signals_blocked((signal.SIGINT,)):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in handlers:
            if number in came:
                signal.raise_signal(number)
