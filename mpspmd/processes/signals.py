"""Which signals a rank leaves to its engine, and how a process handles its own or defers them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Collection, Iterator
from typing import Any

from mpspmd.processes.proc import caught_signals
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
"""Signals that are sent to a whole process group or control group. The engine decides what they mean."""

STACK_SIGNAL = signal.SIGRTMIN + 7
"""By this signal an engine asks a rank for its stacks."""

# SIGCHLD tells of a process's own children, and Python ignores SIGPIPE.
_OWN = SYNCHRONOUS_SIGNALS | {signal.SIGCHLD, signal.SIGPIPE}


def signals_of_engine() -> frozenset[int]:
    """In the engine: GROUP_SIGNALS, and the signals that the engine has handlers for. A rank has no such
    handlers, and the signals would end it."""
    return GROUP_SIGNALS | (handled_signals() - _OWN)


def handled_signals() -> frozenset[int]:
    """The signals that this process has handlers for."""
    if (caught := caught_signals("self")) is not None:
        return caught
    return frozenset(n for n in signal.valid_signals() if callable(signal.getsignal(n)))


@contextlib.contextmanager
def signals_deferred(blocked: Collection[int] = (signal.SIGINT,)) -> Iterator[None]:
    """SIGINT and SIGTERM that come in the body are handled after it.

    The signals in `blocked` are blocked as well. A process that the body starts inherits this, so Ctrl-C
    doesn't end it; a thread inherits it too. To block signals isn't enough, because another thread may take
    them for the main thread.
    """
    came: set[int] = set()

    def raise_if_came(number: int) -> None:
        if number in came:
            signal.raise_signal(number)

    handlers: dict[signal.Signals, Any] = {}
    # Each call below may raise what the handler of a pending signal raises. SIGINT's handler usually does:
    # it is replaced last.
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # What is ignored stays ignored, also in a new process. None: a handler that isn't Python's.
                if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                    handlers[number] = handler
                    signal.signal(number, lambda taken, frame: came.add(taken))
        with signals_blocked(blocked):
            yield
    finally:
        with contextlib.ExitStack() as last_to_first:  # goes on when one of these raises
            for number in handlers:
                last_to_first.callback(raise_if_came, number)
            for number, handler in handlers.items():
                last_to_first.callback(signal.signal, number, handler)


@contextlib.contextmanager
def exiting_at_sigterm() -> Iterator[None]:
    """In the body SIGTERM raises SystemExit(143) in the main thread, unless the program handles SIGTERM
    itself. In another thread this does nothing."""

    def exit_by_signal(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, exit_by_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
