"""Failures: whose fault it is, what fails with it, and who is told."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from mpspmd.engine.call import Call
from mpspmd.engine.progress import progress_of
from mpspmd.engine.replies import Replies
from mpspmd.errors import ChannelPoisoned, EngineClosed, RankDied, RankError
from mpspmd.exceptions.fault import Fault, error_of, is_desync, restore_cause
from mpspmd.exceptions.foreign import logged
from mpspmd.notice import notice
from mpspmd.processes.exit_status import PENDING
from mpspmd.threads import start_thread
from mpspmd.transport.channel import EngineChannel, Poison

logger = logging.getLogger(__name__)

_SETTLE_S = 0.02
"""How long an error is held: other ranks may fail of the same call, or have done it."""

_SETTLE_COLLECTIVE_S = 0.08
"""How long an error is held that another rank's end may have caused."""

_NOTICE_S = 4.0
"""How long a caller whose wait was ended by a death waits for the supervisor's report of it."""

# What ranks raise when a peer of theirs has gone: gloo says it in words, NCCL has types of its own.
_COLLECTIVE_TYPES = {"DistBackendError", "DistNetworkError", "DistStoreError", "DistError"}
_COLLECTIVE_WORDS = re.compile(r"gloo|nccl|connection (closed|reset) by peer|broken pipe", re.I)


@dataclass
class _Held:
    """A call that has failed, until it is known of what."""

    call: Call
    due: float
    errors: list[tuple[int, Exception]] = field(default_factory=list)


class Failures:
    """Gives each failed call its error, and the engine its first cause.

    `add_error`, `fail`, `raise_cause` and the callbacks: any thread; what the supervisor calls, in its
    own. `pids()` are the ranks' processes, `wake` makes the supervisor call `tick`, and `end_ranks` is
    called in a thread of its own when the run has failed. The run fails when one of `fatal_methods` does;
    `on_cause` is told of it before any caller is.
    """

    def __init__(
        self,
        channel: EngineChannel,
        pids: Callable[[], Sequence[int]],
        wake: Callable[[], None],
        end_ranks: Callable[[], None],
        fatal_methods: Collection[str],
        on_cause: Callable[[BaseException], None] | None,
    ) -> None:
        self._channel = channel
        self._pids = pids
        self._wake = wake
        self._end_ranks = end_ranks
        self._replies: Replies
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._known = threading.Event()
        self._reaper: threading.Thread | None = None
        self._fatal_methods = frozenset(fatal_methods)
        self._on_cause = on_cause
        self.cause: BaseException | None = None
        """Why the engine can't be used any more."""

    def attach(self, replies: Replies) -> None:
        """The calls under way. Once, before any call."""
        self._replies = replies

    # Errors of calls.

    def add_error(self, call: Call, rank: int, error: Exception) -> None:
        """A rank has failed. Its call ends when the dust has settled."""
        with self._lock:
            settle_s = _SETTLE_COLLECTIVE_S if _is_collective(error) else _SETTLE_S
            due = time.monotonic() + settle_s
            held = self._held.setdefault(call.step, _Held(call, due))
            held.errors.append((rank, error))
            if not _is_collective(error):
                held.due = min(held.due, due)
        self._wake()

    def held_error(self, call: Call) -> Exception | None:
        """What is known against a call whose deadline has passed."""
        with self._lock:
            held = self._held.get(call.step)
        return None if held is None else _first_cause(held.errors)[1]

    def on_fault(self, fault: Fault) -> None:
        """A rank that doesn't reply has raised."""
        error = error_of(fault)
        call = self._replies.get(fault.step)
        if call is not None:
            self.add_error(call, fault.rank, error)
        elif self.cause is not None:
            logger.debug("after the failure: %s", error)
        else:
            if fault.method in self._fatal_methods or is_desync(error):
                self.fail(error, Poison.RANK_FAILED, fault.rank)
            notice(logger.error, "%s", error)

    def on_death(self, rank: int, reason: str) -> None:
        """A rank's process is gone, or about to go."""
        if self.cause is not None:
            return  # the survivors of a failed run leave: no news
        error = self._death(rank, reason)
        self._channel.mark_dead(rank)
        self.fail(error, Poison.RANK_DIED, rank)

    def tick(self) -> float:
        """Ends the calls that have settled. Returns the seconds until the next one has."""
        now = time.monotonic()
        with self._lock:
            settled = [held for held in self._held.values() if held.due <= now]
        # A death explains more than what it has made the others raise.
        if settled and self.cause is None and self._channel.dead_ranks():
            return 0.01
        for held in settled:
            self._conclude(held)
        with self._lock:
            return min((held.due for held in self._held.values()), default=math.inf) - now

    def _conclude(self, held: _Held) -> None:
        with self._lock:
            self._held.pop(held.call.step, None)
            rank, error = _first_cause(held.errors)
        if isinstance(error, RankError):
            failed = {rank for rank, _ in held.errors}
            error.name_those_that_succeeded(
                state.rank
                for state in progress_of(held.call, self._channel)
                if state.rank not in failed and (state.replied or state.finished)
            )
        # A rank that can't decode requests is lost: the others have run them, and no key frame helps.
        is_fatal = held.call.method in self._fatal_methods or is_desync(error)
        if is_fatal and self.cause is None:
            self.fail(error, Poison.RANK_FAILED, rank)
        else:
            self._replies.finish_now(held.call, error)

    def _death(self, rank: int, reason: str) -> RankDied:
        line = self._channel.status.line(rank).snapshot()
        method = line["method"] if line["phase"] != "waiting" else ""
        return RankDied(rank, self._pids()[rank], method, line["step"], reason)

    # The engine's own failure.

    def fail(self, error: BaseException, poison: Poison | None, rank: int = -1) -> None:
        """No call succeeds from now on. The first error stays. Without `poison`: a clean end."""
        with self._lock:
            first = self.cause is None
            if first:
                self.cause = error
            self._held.clear()
        if first:
            if poison is not None:
                self._tell_cause(error)
            self._known.set()
        # In this order: who registers a call after it was failed here finds the channel ended.
        if poison is None:
            self._channel.close()
        else:
            self._channel.poison(poison, rank)
        self._replies.end(self.cause or error)
        self._channel.requests.interrupt()
        if first and poison is not None:
            self._reaper = start_thread(self._end_ranks, name="mpspmd-reaper")
            # Before the callbacks, of which one may end this process.
            if poison is Poison.RANK_DIED:
                notice(logger.error, "%s", error)
            self._run_callbacks()

    def _tell_cause(self, error: BaseException) -> None:
        if self._on_cause is None:
            return
        with logged("on_cause"):
            self._on_cause(error)

    def wait_until_known(self) -> None:
        """A rank has died, and the supervisor is about to report it."""
        self._known.wait(_NOTICE_S)

    def wait_for_reaper(self) -> None:
        """Until the ranks of a failed run are gone."""
        if self._reaper is not None and self._reaper is not threading.current_thread():
            self._reaper.join()

    def on_failure(self, callback: Callable[[], None]) -> None:
        """Calls back once, when the run fails; now, if it has."""
        self._callbacks.append(callback)
        if self.cause is not None:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        while self._callbacks:
            callback = self._callbacks.pop()
            with logged("a failure callback"):
                callback()

    def raise_cause(self, error: BaseException | None = None) -> NoReturn:
        """The first cause, as a new exception: one object must not collect many tracebacks."""
        if self.cause is not None or isinstance(error, ChannelPoisoned):
            # The waits were ended by a watcher that is faster than any Python: `on_cause` comes first.
            self.wait_until_known()
        cause = self.cause
        if cause is None and isinstance(error, ChannelPoisoned):
            cause = self._death(max(0, error.rank), PENDING)
        if cause is None:
            raise EngineClosed("the channel has ended") from error
        restore_cause(cause)
        raise type(cause)(*cause.args) from cause.__cause__


def _first_cause(errors: list[tuple[int, Exception]]) -> tuple[int, Exception]:
    """A collective fails on all ranks when one of them has failed of something else."""
    return next((pair for pair in errors if not _is_collective(pair[1])), errors[0])


def _is_collective(error: Exception) -> bool:
    if not isinstance(error, RankError):
        return False
    return error.exception in _COLLECTIVE_TYPES or bool(_COLLECTIVE_WORDS.search(error.message))
