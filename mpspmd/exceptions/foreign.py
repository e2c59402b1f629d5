"""Calls of the user's code in a thread of ours: an exception must not end that thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from mpspmd.notice import notice
from mpspmd.threads import signals_of_user

logger = logging.getLogger(__name__)


class Terminated(SystemExit):
    """A rank raises this on SIGTERM when its run has ended."""


def is_perhaps_a_signals(error: BaseException) -> bool:
    """Whether a signal handler may have raised it. Such an exception is the main thread's, and is not held
    back."""
    return (
        isinstance(error, KeyboardInterrupt | SystemExit)
        and threading.current_thread() is threading.main_thread()
    )


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Logs whatever the body raises, and goes on. `what` names the body, for the log."""
    try:
        with signals_of_user():
            yield
    except BaseException as error:
        if is_perhaps_a_signals(error):
            raise
        notice(logger.error, "%s has failed", what, exc_info=error)
