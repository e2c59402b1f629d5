"""Consequences: carries out what `blame` has decided."""

from __future__ import annotations

import logging
import threading

from mpspmd.engine.call import CallTable
from mpspmd.engine.events import (
    CallFails,
    Explain,
    Report,
    RunFails,
    Started,
    StartFails,
    Verdict,
)
from mpspmd.engine.outcome import OnFailure, RunOutcome, anew
from mpspmd.engine.ranks import Ranks
from mpspmd.engine.reader import Reader
from mpspmd.engine.stall import progress_of
from mpspmd.errors import EngineClosed, NodeLost, RankDied, RankError, StartupError
from mpspmd.naming import rank_name
from mpspmd.notice import notice
from mpspmd.processes.janitor import Janitor
from mpspmd.threads import start_thread_or_call
from mpspmd.transport.channel import EngineChannel, Poison
from mpspmd.turns import Flag

logger = logging.getLogger(__name__)


class Consequences:
    """`carry_out`: the supervisor's thread; `close`: also one that has waited for that thread for too long.
    The rest: any thread.

    `on_cause` is told why the run has failed, before any caller is.
    """

    def __init__(
        self,
        channel: EngineChannel,
        table: CallTable,
        reader: Reader,
        outcome: RunOutcome,
        ranks: Ranks,
        janitor: Janitor,
        on_cause: OnFailure | None,
    ) -> None:
        self._janitor = janitor
        self._channel = channel
        self._table = table
        self._reader = reader
        self._run_outcome = outcome
        self._ranks = ranks
        self._on_cause = on_cause
        self._start_known = Flag()
        self._start_failures: dict[int, str] = {}
        self._over = Flag()
        self._reaper: threading.Thread | None = None

    @property
    def has_failed(self) -> bool:
        cause = self._run_outcome.cause
        return cause is not None and not isinstance(cause, EngineClosed)

    def carry_out(self, verdict: Verdict) -> None:
        match verdict:
            case Started():
                self._start_known.set()
            case StartFails(causes=causes):
                self._start_failures = dict(causes)
                self._start_known.set()
            case CallFails():
                self._fail_call(verdict)
            case RunFails():
                self._fail_run(verdict)
            case Report(error=error):
                notice(logger.error, "%s", error)
            case Explain(rank=rank, reason=reason):
                process = self._ranks.processes[rank]
                who = rank_name(rank, process.pid, process.node)
                notice(logger.error, "%s: %s", who, reason)

    def _fail_call(self, failed: CallFails) -> None:
        self._name_those_that_succeeded(failed)
        call = self._table.failing.pop(failed.step, None)
        if call is None:
            return
        self._reader.finish_now(call, failed.error)
        if call.error is None:  # all replies that it had asked for had come before
            notice(logger.error, "%s", failed.error)

    def _fail_run(self, failure: RunFails) -> None:
        error = failure.error
        died = isinstance(error, RankDied)
        if failure.call is not None:
            self._name_those_that_succeeded(failure.call)
        dump = self._janitor.write_dump(str(error), failed=True)
        if isinstance(error, RankDied):
            error.dump = dump
        self._run_outcome.settle(error, self._on_cause)
        if died:
            self._channel.mark_dead(failure.rank)
        self._channel.poison(Poison.RANK_DIED if died else Poison.RANK_FAILED, failure.rank)
        self._end_calls(error)
        # The poisoned rings have told the survivors to end.
        self._reaper = start_thread_or_call(self._ranks.end_survivors, name="mpspmd-reaper")
        self._start_known.set()
        self._over.set()
        # Before the callbacks, of which one may end this process.
        if died:
            notice(logger.error, "%s", error)
        self._run_outcome.call_back()

    def _name_those_that_succeeded(self, failed: CallFails) -> None:
        call = self._table.failing.get(failed.step)
        if call is not None and isinstance(failed.error, RankError):
            failed.error.name_those_that_succeeded(
                each.rank
                for each in progress_of(call, self._channel)
                if each.rank not in failed.failed and (each.replied or each.finished)
            )

    def _end_calls(self, error: BaseException) -> None:
        """After the rings have been closed or poisoned: a call that comes later fails when it is sent."""
        for call in self._table.all():
            self._reader.finish(call, anew(error))
        self._reader.stop()
        self._channel.requests.interrupt()

    def close(self) -> None:
        """The engine has been shut down: no call succeeds from now on, and ranks may end."""
        self._channel.expect_deaths()
        closed = EngineClosed("the engine has been shut down")
        self._run_outcome.settle(closed)
        # Also after a failure: `on_cause` may keep the supervisor's thread from ending the calls.
        self._channel.close()
        self._end_calls(self._run_outcome.cause or closed)
        self._over.set()

    def raise_start_failures(self) -> None:
        """Returns when all ranks are ready. StartupError with the cause of each rank that has failed."""
        self._start_known.wait()
        if self._start_failures:
            raise StartupError(self._start_failures)
        if self._run_outcome.cause is not None:
            # A rank has died since all were ready, or the supervisor itself has failed.
            try:
                self._run_outcome.raise_cause()
            except RankDied as died:
                ranks = died.ranks if isinstance(died, NodeLost) else (died.rank,)
                raise StartupError(dict.fromkeys(ranks, died.reason)) from died

    def wait_until_over(self, timeout_s: float) -> bool:
        """Waits until the run has failed or been closed; else False. Callbacks may still be running."""
        return self._over.wait(timeout_s)

    def wait_for_reaper(self) -> None:
        """Until the ranks of a failed run are gone."""
        if self._reaper is not None and self._reaper is not threading.current_thread():
            self._reaper.join()
