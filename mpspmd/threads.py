"""Threads of ours block signals, so that the main thread gets each signal.

Python runs signal handlers in the main thread only. If the kernel gives a signal to another thread, the
main thread doesn't notice it before its current system call ends. The kernel may do that, for example, with
a signal that comes while the process is stopped.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

SYNCHRONOUS_SIGNALS = frozenset(
    signal.Signals[f"SIG{name}"] for name in ("ABRT", "BUS", "FPE", "ILL", "SEGV", "SYS", "TRAP")
)
"""The kernel sends these to the thread that has caused them. faulthandler must see them."""

_BLOCKED = signal.valid_signals() - SYNCHRONOUS_SIGNALS


class _OwnThread(threading.Thread):
    signals_of_user: set[signal.Signals]
    """The signals that the user's code blocks in this thread."""


def start_thread(
    target: Callable[..., object], *args: Any, name: str, **kwargs: Any
) -> threading.Thread:
    """Starts a daemon thread that blocks all signals. RuntimeError when no more threads can be started."""
    thread = _OwnThread(target=target, args=args, kwargs=kwargs, name=name, daemon=True)
    with signals_blocked(_BLOCKED) as before:
        mask = _mask_of_user()
        thread.signals_of_user = before if mask is None else mask
        thread.start()
    return thread


def start_thread_or_call(
    target: Callable[..., object], *args: Any, name: str
) -> threading.Thread | None:
    """As start_thread(). But if no more threads can be started, it calls the target and returns None."""
    try:
        return start_thread(target, *args, name=name)
    except RuntimeError:
        target(*args)
        return None


@contextlib.contextmanager
def signals_blocked(numbers: Collection[int]) -> Iterator[set[signal.Signals]]:
    """This thread, and what is started in the body, block these signals. Yields those blocked before."""
    # The second call may raise what a handler raises, after it has changed the mask.
    before: Any = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def signals_of_user() -> Iterator[None]:
    """For user's code in a thread of ours: what it starts must not inherit the signals that we block."""
    if (mask := _mask_of_user()) is None:
        yield
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)


def _mask_of_user() -> set[signal.Signals] | None:
    """None: this isn't a thread of ours, or it is the main thread of a process forked in one."""
    thread = threading.current_thread()
    return None if thread is threading.main_thread() else getattr(thread, "signals_of_user", None)
