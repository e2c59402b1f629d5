"""How the process of vLLM's EngineCore ends: its front end waits 5 s, then kills it and its ranks."""

from __future__ import annotations

import contextlib
import functools
import logging
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

from mpspmd.processes.quick_exit import exit_quickly
from mpspmd.threads import start_thread
from mpspmd.vllm.compat import (
    CoreState,
    engine_core_state,
    has_been_told_to_end,
    is_engine_core,
)

logger = logging.getLogger(__name__)

_PARENT_POLL_S = 0.5
_KILLED_WITHIN_S = 2.0


@contextlib.contextmanager
def exiting_at_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise SystemExit in an EngineCore that isn't made yet.

    vLLM's handler would only note the signal, and EngineCore would go on starting. After 5 s the front end
    would kill it and its ranks, and vLLM's files and our run folder would stay. So we stop here, and clean
    up. An EngineCore that is made ends in its own way, and may finish requests first.
    """
    handlers = _handlers_to_replace()
    if not handlers:
        yield
        return
    if any(map(has_been_told_to_end, handlers.values())):
        raise SystemExit

    def note_and_exit(number: int, frame: FrameType | None) -> None:
        # Only once: a second signal must not interrupt the clean-up.
        _set_handlers(handlers)
        note = handlers[signal.Signals(number)]
        if callable(note):
            note(number, frame)
        raise SystemExit

    _set_handlers(dict.fromkeys(handlers, note_and_exit))
    try:
        yield
    finally:
        _set_handlers(handlers)


def _handlers_to_replace() -> dict[signal.Signals, signal._HANDLER]:
    """The handlers of SIGINT and SIGTERM that aren't ignored, if this is an EngineCore that isn't made."""
    if not is_engine_core() or threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None stands for a handler that isn't Python's.
    handlers = {
        number: each for number, each in handlers.items() if each not in (signal.SIG_IGN, None)
    }
    states = {engine_core_state(each) for each in handlers.values()}
    if CoreState.UNKNOWN in states:
        _warn_of_unknown_handlers()
    return handlers if states == {CoreState.BEING_MADE} else {}


@functools.cache  # once a process
def _warn_of_unknown_handlers() -> None:
    logger.warning(
        "mpspmd doesn't know how this version of vLLM handles signals: it can't clean up if it is "
        "interrupted while it starts"
    )


def _set_handlers(handlers: dict[signal.Signals, signal._HANDLER]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def await_own_kill() -> None:
    """After a rank's death: returns at once, or 2 s later if EngineCore has been told to end.

    At Ctrl-C the front end kills all processes, the ranks first. If EngineCore reported the ranks' deaths
    in the moment before its own, the user would see a traceback of a failure that is none.
    """
    if is_engine_core() and has_been_told_to_end(signal.getsignal(signal.SIGTERM)):
        time.sleep(_KILLED_WITHIN_S)


def exit_with_parent() -> None:
    """From now on EngineCore exits when its front end does, which it would survive by a minute.

    Nobody waits for its answers. Its ranks notice, shut their workers down and exit, and the last of them
    removes the run's files. EngineCore's own orderly end would take longer than all that.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not is_engine_core():
        return
    pid, sentinel = os.getppid(), parent.sentinel

    def watch() -> None:
        # Check the pid as well: a process that the front end forks keeps the sentinel's other end open.
        while not connection.wait([sentinel], _PARENT_POLL_S) and os.getppid() == pid:
            pass
        os._exit(1)

    start_thread(watch, name="mpspmd-front-end")


def exit_quickly_when_done() -> None:
    """If EngineCore ends without an error, it skips the interpreter's finalization, which takes 2 s.

    Its own clean-up is done by the time multiprocessing calls its finalizers.
    """
    if not is_engine_core():
        return

    def exit_if_clean() -> None:
        error = sys.exc_info()[1]
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            exit_quickly(0)

    multiprocessing_util.Finalize(None, exit_if_clean, exitpriority=-100)
