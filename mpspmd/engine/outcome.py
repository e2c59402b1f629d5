"""RunOutcome: why a run is over, and who is told."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import NoReturn

from mpspmd._ring import StatusPage
from mpspmd.errors import ChannelPoisoned, EngineClosed, RankDied
from mpspmd.exceptions.fault import restore_cause
from mpspmd.exceptions.foreign import logged
from mpspmd.processes.exit_status import PENDING
from mpspmd.turns import Flag

_KNOWN_S = 4.0
"""How long a caller whose wait was ended by a death waits for the supervisor to say why."""

OnFailure = Callable[[BaseException], None]


class RunOutcome:
    """Any thread may ask. Only the supervisor's thread settles it."""

    def __init__(self, status: StatusPage) -> None:
        self._status = status
        self._lock = threading.Lock()
        self._callbacks: list[OnFailure] = []
        self._failed = False
        self._known = Flag()
        self.cause: BaseException | None = None
        """Why the engine can't be used any more."""

    def settle(self, cause: BaseException, before_callers: OnFailure | None = None) -> None:
        """The run is over; the first cause stays. `before_callers` is told of it before any caller is."""
        if self.cause is None:
            self.cause = cause
            if before_callers is not None:
                with logged("on_cause"):
                    before_callers(cause)
        self._known.set()

    def on_failure(self, callback: OnFailure) -> None:
        """Calls back once, when the run has failed; at once, if it has failed already."""
        with self._lock:
            if not self._failed:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def call_back(self) -> None:
        """The run has failed: calls the callbacks, the last one first."""
        with self._lock:
            self._failed = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in reversed(callbacks):
            self._call(callback)

    def _call(self, callback: OnFailure) -> None:
        with logged("a failure callback"):
            restore_cause(self.cause)
            callback(self.cause or EngineClosed())

    def raise_cause(self, error: BaseException | None = None) -> NoReturn:
        """The cause, as a new exception."""
        if self.cause is not None or isinstance(error, ChannelPoisoned):
            # A native thread ends all waits as soon as a rank has died. The supervisor finds out
            # later why, and tells on_cause before anybody else.
            self._known.wait(_KNOWN_S)
        cause = self.cause
        if cause is None and isinstance(error, ChannelPoisoned):
            cause = death(self._status, max(0, error.rank), PENDING)
        if cause is None:
            raise EngineClosed("the channel has ended") from error
        restore_cause(cause)
        raise anew(cause) from cause.__cause__


def anew(cause: BaseException) -> BaseException:
    """The same error as a new exception, for one caller: what is raised refers to all frames that it went
    through, and so to the engine, which the cause of a run's end must not keep alive."""
    new = copy.copy(cause)
    if hasattr(cause, "__notes__"):
        new.__notes__ = list(cause.__notes__)  # add_note() would add to the cause's own list
    new.__cause__ = cause.__cause__
    return new


def death(status: StatusPage, rank: int, reason: str, pid: int = 0, node: int = 0) -> RankDied:
    """The error for a rank that has died, with the method that it was in. Give `pid` and `node` if the rank
    may have died before they were in the status page."""
    line = status.line(rank).snapshot()
    method = line["method"] if line["phase"] != "waiting" else ""
    return RankDied(rank, pid or line["pid"], method, line["step"], reason, node or line["node"])
