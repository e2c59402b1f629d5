"""Supervisor: the engine's thread that knows how its ranks are."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from mpspmd.control.messages import Dump, Exiting, Hello, Ready, Shutdown, Stacks, ToEngine
from mpspmd.control.plane import EnginePlane
from mpspmd.errors import StartupError
from mpspmd.exceptions.fault import Fault
from mpspmd.notice import notice
from mpspmd.processes.exit_status import PENDING
from mpspmd.processes.process import Process
from mpspmd.threads import start_thread
from mpspmd.transport.channel import EngineChannel

logger = logging.getLogger(__name__)

_SETTLE_S = 0.25
"""How long other ranks' faults may follow the first one at start: the cause may be among them."""

_EXIT_STATUS_S = 0.04
"""How long the exit status of a rank that is known to be dead is waited for before it is reported."""


class Supervisor:
    """Owns the engine's ROUTER and watches the ranks' processes, in a thread of its own.

    A death is first noticed by the channel's native threads, which have ended all waits by then; this
    thread reports it. The processes' sentinels tell when they can be reaped.

    In its thread it calls `on_fault`, when a rank has raised what it doesn't reply, `on_death(rank,
    reason)`, when a rank has gone or is about to go unasked, and each of `ticks`, which do what is due
    and return the seconds until there will be more.
    """

    def __init__(
        self,
        plane: EnginePlane,
        channel: EngineChannel,
        on_fault: Callable[[Fault], None],
        on_death: Callable[[int, str], None],
        ticks: Sequence[Callable[[], float]],
    ) -> None:
        self._plane = plane
        self._channel = channel
        self._on_fault = on_fault
        self._on_death = on_death
        self._ticks = ticks
        self._processes: list[Process] = []
        self._last_words: Callable[[int], str] = lambda rank: ""
        self._unreaped: dict[int, int] = {}  # the sentinel's descriptor, and its rank
        self._change = threading.Condition()
        self._begun: set[int] = set()
        self._ready: set[int] = set()
        self._failed: dict[int, str] = {}
        self._dead: set[int] = set()
        self._pending: set[int] = set()
        self._leaving: dict[int, str] = {}
        self._dump = 0
        self._stacks: dict[int, str] = {}
        self._starting = True
        self._deaths_expected = False
        self._closing = False
        plane.watch(channel.deaths_fd)
        self._thread = start_thread(self._run, name="mpspmd-supervisor")

    def watch(self, processes: Sequence[Process], last_words: Callable[[int], str]) -> None:
        """These are the ranks, in order. Once. `last_words` tells why a rank has ended before it could send
        anything, or ""."""
        self._last_words = last_words
        self._processes = list(processes)
        self._plane.wake()

    def wait_until_ready(self, world_size: int, timeout_s: float | None) -> None:
        """Returns when all ranks are ready. StartupError with the root cause of each that failed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._change:
            while len(self._ready) < world_size and not self._failed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._failed = dict.fromkeys(
                        set(range(world_size)) - self._ready,
                        f"not ready after {timeout_s:g} s (MPSPMD_START_TIMEOUT_S)",
                    )
                    break
                # In slices, so that Ctrl-C is seen: a condition's wait can't be interrupted.
                self._change.wait(0.2 if left is None else min(left, 0.2))
            if not self._failed:
                self._starting = False
                return
            settled = time.monotonic() + _SETTLE_S
            while len(self._failed) < world_size and time.monotonic() < settled:
                self._change.wait(settled - time.monotonic())
            raise StartupError(dict(self._failed))

    def has_begun(self, rank: int) -> bool:
        """Whether it has told of itself, and so listens to signals."""
        return rank in self._begun

    def all_ready(self, world_size: int) -> bool:
        return len(self._ready) == world_size

    def ask_to_leave(self, ranks: Sequence[int]) -> None:
        """Any thread. Each rank leaves as soon as its current method returns."""
        for rank in ranks:
            self._plane.send(rank, Shutdown())

    def ask_for_stacks(self, ranks: Sequence[int], timeout_s: float) -> dict[int, str]:
        """Those of the ranks whose control threads answer in time. One thread at a time."""
        self._stacks = {}
        self._dump += 1
        for rank in ranks:
            self._plane.send(rank, Dump(self._dump))
        with self._change:
            self._change.wait_for(lambda: len(self._stacks) >= len(ranks), timeout_s)
            return dict(self._stacks)

    def wake(self) -> None:
        """Something is due earlier than the last of `ticks` said. Any thread."""
        self._plane.wake()

    def close(self) -> None:
        """Ends the thread and closes the socket."""
        self._closing = True
        self._plane.wake()
        if threading.current_thread() is not self._thread:  # a failure callback may shut down
            self._thread.join(timeout=5)
        for rank in list(self._pending):
            self._complete_reason(rank)

    def expect_deaths(self) -> None:
        """From now on a rank's end is no failure."""
        self._deaths_expected = True

    def _run(self) -> None:
        while not self._closing:
            self._watch_processes()
            due_s = min(tick() for tick in self._ticks)
            ready, received = self._plane.poll(min(1.0, max(0.0, due_s)))
            # What ranks have said comes before what has become of them.
            for message in received:
                self._take(message)
            self._take_leavings()
            if self._channel.deaths_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._channel.deaths_fd)
                for rank in self._channel.dead_ranks():
                    self._take_death(rank)
            for sentinel in ready & self._unreaped.keys():
                self._plane.unwatch(sentinel)
                self._take_end(self._unreaped.pop(sentinel))
        self._plane.close()

    def _watch_processes(self) -> None:
        if self._unreaped or not self._processes or self._dead:
            return
        for rank, process in enumerate(self._processes):
            self._unreaped[process.sentinel] = rank
            self._plane.watch(process.sentinel)

    def _take(self, message: ToEngine) -> None:
        match message:
            case Hello(rank=rank):
                self._begun.add(rank)
            case Ready(rank=rank):
                with self._change:
                    self._ready.add(rank)
                    self._change.notify_all()
            case Fault() if self._starting:
                self._fail_start(message.rank, f"{message.exception}: {message.message}\n"
                                 f"{message.traceback}".rstrip())  # fmt: skip
            case Fault():
                self._on_fault(message)
            case Stacks(rank=rank, nonce=nonce, text=text) if nonce == self._dump:
                with self._change:
                    self._stacks[rank] = text
                    self._change.notify_all()
            case Exiting(rank=rank, cause=cause) if not self._deaths_expected:
                self._leaving[rank] = cause
            case _:
                logger.debug("control: %s", message)

    def _take_leavings(self) -> None:
        """Ranks may have been told to leave because another one has died."""
        for rank, process in enumerate(self._processes) if self._leaving else ():
            if rank not in self._leaving and not process.is_alive():
                self._take_death(rank)
        for rank, cause in self._leaving.items():
            self._on_death(rank, cause)
        self._leaving.clear()

    def _take_death(self, rank: int) -> None:
        """Its life has ended; the process may not be reaped for a while yet."""
        if rank in self._dead or rank >= len(self._processes):
            return
        self._dead.add(rank)
        if self._deaths_expected:
            return
        process = self._processes[rank]
        reason = process.exit_reason()
        if reason == PENDING:
            process.join(_EXIT_STATUS_S)
            reason = process.exit_reason()
        if reason == PENDING:
            self._pending.add(rank)
        if self._starting and self._failed and process.exit_code == 0:
            return  # it was ready, and left when another's end had poisoned the rings
        if self._starting:
            words = self._last_words(rank)
            cause = f"its process ended before it was ready: {reason}"
            self._fail_start(rank, f"{cause}\n{words}" if words else cause)
        else:
            self._on_death(rank, reason)

    def _take_end(self, rank: int) -> None:
        """Its process can be reaped. It may have left because another rank had died, of which this thread
        hasn't been told yet."""
        first = self._channel.first_to_die
        if first is not None:
            self._take_death(first)
        self._take_death(rank)
        self._complete_reason(rank)

    def _complete_reason(self, rank: int) -> None:
        """Logs what a death that was reported as pending was of."""
        if rank in self._pending:
            self._pending.discard(rank)
            process = self._processes[rank]
            process.join(1.0)
            if (reason := process.exit_reason()) != PENDING:
                notice(logger.error, "rank %d (pid %s): %s", rank, process.pid, reason)

    def _fail_start(self, rank: int, cause: str) -> None:
        with self._change:
            # The first word counts: after a fault the process ends as well.
            self._failed.setdefault(rank, cause)
            self._change.notify_all()
