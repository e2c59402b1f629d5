"""Supervisor: the thread that decides what follows from failures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from mpspmd._ring import StatusPage
from mpspmd.engine.blame import judge, next_due
from mpspmd.engine.consequences import Consequences
from mpspmd.engine.event_queue import Dropped, EventQueue, Told
from mpspmd.engine.events import Event, Phase, RunFails, ShutDown, State, TimePassed
from mpspmd.engine.observer import Observer
from mpspmd.engine.stall import StallWatch
from mpspmd.errors import MpSpmdError, text_of
from mpspmd.machine.cores import usable_cores
from mpspmd.notice import notice
from mpspmd.processes.signals import signals_deferred
from mpspmd.threads import start_thread

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0
_COUNT_CORES_S = 5.0
_OVER_S = 5.0
"""How long a shutdown waits for this thread: a user's callback may keep it."""


class Supervisor:
    """The only writer of a run's state. It turns what it notices into events, lets `blame` judge them, and
    has the verdicts carried out. Methods: any thread."""

    def __init__(
        self,
        events: EventQueue,
        observer: Observer,
        consequences: Consequences,
        stalls: StallWatch,
        status: StatusPage,
        state: State,
    ) -> None:
        self._events = events
        self._observer = observer
        self._consequences = consequences
        self._stalls = stalls
        self._status = status
        self._count_cores_at = time.monotonic() + _COUNT_CORES_S
        self._state = state
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ident = 0

    @property
    def all_ready(self) -> bool:
        return len(self._state.ready) == self._state.world_size

    @property
    def has_failed(self) -> bool:
        return self._consequences.has_failed

    @property
    def is_this_thread(self) -> bool:
        return threading.get_ident() == self._ident

    def start(self, timeout_s: float | None) -> None:
        """The ranks' processes have been started. Returns when all ranks are ready, within `timeout_s`.
        StartupError."""
        if timeout_s is not None:
            self._state = replace(
                self._state,
                start_due=time.monotonic() + timeout_s,
                start_limit=f"not ready after {timeout_s:g} s (MPSPMD_START_TIMEOUT_S)",
            )
        self._observer.watch()
        # A Ctrl-C that came before the thread is known would close the control plane that it polls.
        with signals_deferred(blocked=()):
            self._thread = start_thread(self._run, name="mpspmd-supervisor")
        self._consequences.raise_start_failures()

    def shut_down(self) -> None:
        """From now on calls fail, and a rank's end is no failure. A death before that is one: then the
        other ranks have ended, too, when this returns."""
        if self.is_this_thread or self._thread is None or not self._thread.is_alive():
            self._shut_down()
        else:
            self._events.put(ShutDown())
            if not self._consequences.wait_until_over(_OVER_S):
                self._consequences.close()
        self._consequences.wait_for_reaper()

    def drop(self, end: Callable[[], None]) -> None:
        """Nobody refers to the engine any more: has `end` called by this thread. Also from a destructor."""
        self._events.put(Dropped(end))

    def close(self) -> None:
        """Ends the thread, which closes the control plane; a user's callback may keep it for longer."""
        self._closing = True
        if self._thread is None:
            self._observer.close()
        elif not self.is_this_thread:
            self._events.put(TimePassed())
            self._thread.join(_OVER_S)
            if self._thread.is_alive():
                return
        for event in self._observer.last_reasons() if self._state.unexplained else ():
            self._feed(event)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while not self._closing:
                self._take_turn()
        except BaseException as error:
            self._fail(error)
            while not self._closing:
                self._take(self._events.wait())
        finally:
            self._observer.close()

    def _take_turn(self) -> None:
        starting = self._state.phase is Phase.STARTING
        self._count_cores()
        warn_s = self._stalls.tick(starting=starting)
        due_s = next_due(self._state) - time.monotonic()
        self._observer.wait(max(0.0, min(due_s, warn_s, _LONGEST_WAIT_S)))
        self._feed_all(self._observer.said(starting=starting))
        for told in self._events.take_all():
            self._take(told)
        if self._closing:
            return
        # A death is judged before an error that it may have caused.
        is_due = next_due(self._state) <= time.monotonic()
        if self._observer.has_noticed_an_end or is_due:
            self._feed_all(self._observer.ended(starting=starting))
        if is_due:
            places = self._stalls.places() if starting else ()
            self._feed_all([TimePassed(tuple(places))])

    def _count_cores(self) -> None:
        """Tells the run how many cores it may use, which may change while it runs.

        This thread's affinity counts: what limits it limits every thread of the run. A program that moves
        just its main thread to one core takes no core from its ranks.
        """
        if time.monotonic() >= self._count_cores_at:
            self._count_cores_at = time.monotonic() + _COUNT_CORES_S
            self._status.set_cores(usable_cores())

    def _take(self, told: Told) -> None:
        match told:
            case Dropped(end=end):
                end()
            case ShutDown():
                self._shut_down()
            case _:
                self._feed(told)

    def _shut_down(self) -> None:
        self._feed_all(self._observer.ended(starting=self._state.phase is Phase.STARTING))
        self._feed(ShutDown())
        self._consequences.close()

    def _feed_all(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._closing:  # a failure callback has shut the run down
                return
            self._feed(event)

    def _feed(self, event: Event) -> None:
        self._state, verdicts = judge(self._state, event, time.monotonic())
        for verdict in verdicts:
            self._consequences.carry_out(verdict)

    def _fail(self, error: BaseException) -> None:
        """A bug of ours, or no memory. The run fails: without this thread nobody would notice failures."""
        words = f"the engine's supervisor has failed: {type(error).__name__}: {text_of(error)}"
        if not self._consequences.wait_until_over(0):
            self._state, _ = judge(self._state, ShutDown(), time.monotonic())
            failure = MpSpmdError(words)
            failure.__cause__ = error
            self._consequences.carry_out(RunFails(failure, -1))
        notice(logger.error, "%s", words, exc_info=error)
