"""Code of the user's that runs in a thread of ours, and must not end it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from mpspmd.notice import notice

logger = logging.getLogger(__name__)


class Terminated(SystemExit):
    """SIGTERM has come to a rank whose run is over."""


def is_perhaps_a_signals(error: BaseException) -> bool:
    """Whether a signal's handler may have raised it: the main thread must have it then."""
    return (
        isinstance(error, KeyboardInterrupt | SystemExit)
        and threading.current_thread() is threading.main_thread()
    )


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Logs what the code within raises, whatever it is, and goes on."""
    try:
        yield
    except BaseException as error:
        if is_perhaps_a_signals(error):
            raise
        notice(logger.error, "%s has failed", what, exc_info=error)
