"""Observer: makes events of the ranks' control messages and of the ends of their processes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator

from mpspmd.control.messages import Exiting, Ready, Stacks, ToEngine, Usages
from mpspmd.control.plane import EnginePlane
from mpspmd.engine import events
from mpspmd.engine.call import CallTable
from mpspmd.engine.events import Died, Event, Exits, Raised, Reaped, StartRaised
from mpspmd.engine.outcome import death
from mpspmd.engine.rank_stacks import RankStacks
from mpspmd.engine.ranks import Ranks
from mpspmd.errors import NodeLost, RankDied
from mpspmd.exceptions.fault import Fault, error_of
from mpspmd.processes.exit_status import PENDING
from mpspmd.transport.channel import EngineChannel

logger = logging.getLogger(__name__)

_EXPLAINS_S = 0.03
"""How long after a rank's death its own message about its exit may arrive. Less than EXIT_STATUS_S."""

_FAR_S = 0.2
"""How long the reason of a death on another node may come after the notice of it."""

_REAP_S = 1.0
"""At the end of the run: how long to wait for the exit status of a rank that was blamed without one."""


class Observer:
    """Used by the supervisor's thread. The channel's native threads notice a death first, and end all
    waits. Later the process's sentinel tells that its exit status can be had."""

    def __init__(
        self,
        plane: EnginePlane,
        channel: EngineChannel,
        table: CallTable,
        ranks: Ranks,
        stacks: RankStacks,
    ) -> None:
        self._plane = plane
        self._channel = channel
        self._table = table
        self._ranks = ranks
        self._stacks = stacks
        self._sentinels: set[int] = set()
        self._said: list[ToEngine] = []
        self._exiting: dict[int, str] = {}
        """Ranks that are about to end although the engine hasn't asked them to, and why."""
        self._dead: set[int] = set()
        self._unexplained: dict[int, float] = {}
        """Dead ranks whose end isn't explained yet, and until when each may still explain it itself."""
        self.has_noticed_an_end = False
        """Whether `ended` has something to tell, as far as the last `wait` knows."""

    def watch(self) -> None:
        """All ranks have been started."""
        self._plane.watch(self._channel.deaths_fd)
        for process in self._ranks.processes:
            self._plane.watch(process.sentinel)
            self._sentinels.add(process.sentinel)

    def close(self) -> None:
        """Closes the control plane."""
        self._plane.close()

    def wait(self, timeout_s: float) -> None:
        """Until something has come, or another thread has woken the plane."""
        ready, self._said = self._plane.poll(timeout_s)
        for sentinel in ready & self._sentinels:
            self._plane.unwatch(sentinel)
            self._sentinels.remove(sentinel)
        if self._channel.deaths_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._channel.deaths_fd)
        lost = self._ranks.remote is not None and self._ranks.remote.check()
        self.has_noticed_an_end = bool(ready) or lost

    def said(self, *, starting: bool) -> Iterator[Event]:
        """What the ranks' messages say. Call `ended` afterwards: it tells which ranks have ended."""
        for message in self._said:
            match message:
                case Ready(rank=rank):
                    yield events.Ready(rank)
                case Fault() if starting:
                    text = f"{message.exception}: {message.message}\n{message.traceback}"
                    yield StartRaised(message.rank, text.rstrip())
                case Fault():
                    yield self._raised(message)
                case Stacks():
                    self._stacks.take(message)
                case Exiting(rank=rank, cause=cause):
                    self._exiting[rank] = cause
                    self.has_noticed_an_end = True
                case Usages() if self._ranks.remote is not None:
                    self._ranks.remote.take(message)
                case _:
                    logger.debug("control: %s", message)

    def _raised(self, fault: Fault) -> Raised:
        """A rank whose reply isn't asked for has raised."""
        error = error_of(fault)
        call = self._table.pending.get(fault.step)
        if call is None:
            return Raised(fault.rank, fault.step, fault.method, error, awaited=False)
        self._table.note_error(call, fault.rank, error)
        return Raised(fault.rank, fault.step, call.method, error, awaited=True)

    def ended(self, *, starting: bool) -> Iterator[Event]:
        """The ranks that have ended or are about to, the first one first."""
        exiting, self._exiting = self._exiting, {}
        gone = [n for n, process in enumerate(self._ranks.processes) if not process.is_alive()]
        noticed = self._channel.dead_ranks()
        for rank in in_order(self._channel.first_to_die, noticed, gone, exiting):
            if rank in exiting and rank not in self._dead:
                yield Exits(self._death(rank, exiting[rank]))
            elif rank not in self._dead:
                yield self._died(rank, starting)
        for rank, until in sorted(self._unexplained.items()):
            reason = exiting.get(rank) or self._reason(rank, starting)
            may_explain = rank not in exiting and time.monotonic() < until
            if reason != PENDING and not (may_explain and _is_exit(reason)):
                del self._unexplained[rank]
                yield Reaped(rank, reason, self._is_clean(rank))

    def last_reasons(self) -> Iterator[Event]:
        """The exit statuses that have come since the ranks were ended."""
        for rank in sorted(self._unexplained):
            self._ranks.processes[rank].join(_REAP_S)
        return self.ended(starting=False)

    def _died(self, rank: int, starting: bool) -> Died:
        self._dead.add(rank)
        if (process := self._ranks.processes[rank]).node:
            process.join(_FAR_S)
        reason = self._reason(rank, starting)
        # What an exiting rank has said of its exit comes another way, and may come later than its death.
        if pending := reason == PENDING or _is_exit(reason):
            self._unexplained[rank] = time.monotonic() + _EXPLAINS_S
        return Died(self._death(rank, reason), pending=pending, clean=self._is_clean(rank))

    def _is_clean(self, rank: int) -> bool:
        return self._ranks.processes[rank].exit_code == 0

    def _reason(self, rank: int, starting: bool) -> str:
        reason = self._ranks.processes[rank].exit_reason()
        words = self._ranks.last_words(rank) if starting and reason != PENDING else ""
        return f"{reason}\n{words}" if words else reason

    def _death(self, rank: int, reason: str) -> RankDied:
        process = self._ranks.processes[rank]
        died = death(self._channel.status, rank, reason, process.pid, process.node)
        if lost := process.lost_with:
            return NodeLost(process.node, lost, reason, died.pid, died.method, died.step)
        return died


def _is_exit(reason: str) -> bool:
    return reason.startswith("exit code")


def in_order(
    first: int | None, noticed: Iterable[int], gone: Iterable[int], exiting: Iterable[int]
) -> list[int]:
    """Which ranks have ended, the one first that may have made the others end.

    `first` is the rank whose death has poisoned the rings, which is known before anything else; the deaths
    of the `noticed` were noticed by the channel; the processes of the `gone` have ended; the `exiting` say
    that they are about to, perhaps because another one has died.
    """
    known = [] if first is None else [first]
    return list(dict.fromkeys([*known, *noticed, *gone, *exiting]))
