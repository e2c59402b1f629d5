"""How vLLM's EngineCore process ends: its front end gives it 5 s, then kills the whole tree."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing import util as multiprocessing_util
from types import FrameType
from typing import Any

from mpspmd.processes.leave import leave

_PARENT_LOOK_S = 0.5
_KILLED_WITHIN_S = 2.0


def is_engine_core() -> bool:
    return multiprocessing.current_process().name.startswith("EngineCore")


@contextlib.contextmanager
def leaving_at_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise SystemExit in EngineCore while it is being made.

    It would only note a signal, and go on starting. Killed after 5 s with all its ranks, it would leave
    vLLM's files and our folder behind; so we stop, and clean up. Once it is made, it ends in its own way,
    and may finish requests first.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored stays so. None is a handler that isn't Python's.
    noting = {
        number: each for number, each in handlers.items() if each not in (signal.SIG_IGN, None)
    }
    if (
        not is_engine_core()
        or threading.current_thread() is not threading.main_thread()
        or any(_variable(each, "engine_core") is not None for each in noting.values())
    ):
        yield
        return
    if any(map(_has_noted, noting.values())):
        raise SystemExit

    def note_and_stop(number: int, frame: FrameType | None) -> None:
        # Once: the clean-up that follows must not be cut short.
        for each, handler in noting.items():
            signal.signal(each, handler)
        note = noting[signal.Signals(number)]
        if callable(note):
            note(number, frame)
        raise SystemExit

    for number in noting:
        signal.signal(number, note_and_stop)
    try:
        yield
    finally:
        for number, handler in noting.items():
            signal.signal(number, handler)


def _has_noted(handler: object) -> bool:
    """Whether a signal has come before: EngineCore's handler notes it in a variable of its own."""
    return bool(_variable(handler, "shutdown_requested"))


def _variable(handler: object, name: str) -> Any:
    """A variable of the function around EngineCore's handler; None if there is none."""
    code, cells = getattr(handler, "__code__", None), getattr(handler, "__closure__", None) or ()
    names = getattr(code, "co_freevars", ())
    return cells[names.index(name)].cell_contents if name in names else None


def await_own_kill() -> None:
    """After a rank's death: returns only if EngineCore hasn't been told to end, or goes on living.

    The front end kills the whole tree at Ctrl-C, the ranks first. A failure that EngineCore tells of in
    the moment before its own turn is none, and its traceback would be all that the user sees.
    """
    if is_engine_core() and _has_noted(signal.getsignal(signal.SIGTERM)):
        time.sleep(_KILLED_WITHIN_S)


def leave_with_parent() -> None:
    """From now on EngineCore ends when its front end does, which it would survive by a minute.

    It has nobody to answer to: its ranks notice, shut their workers down and leave, and the run's files go
    with the last of them. Its own orderly end would take longer than all that.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not is_engine_core():
        return
    pid, sentinel = os.getppid(), parent.sentinel

    def watch() -> None:
        # The pid as well: who forks in the front end keeps the sentinel's other end open.
        while not connection.wait([sentinel], _PARENT_LOOK_S) and os.getppid() == pid:
            pass
        os._exit(1)

    threading.Thread(target=watch, name="mpspmd-front-end", daemon=True).start()


def leave_quickly() -> None:
    """Makes EngineCore skip the interpreter's finalization, which alone takes 2 s, if it ends cleanly.

    Its own clean-up has been done by the time multiprocessing's finalizers run.
    """
    if not is_engine_core():
        return

    def leave_if_clean() -> None:
        error = sys.exc_info()[1]
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            leave(0)

    multiprocessing_util.Finalize(None, leave_if_clean, exitpriority=-100)
