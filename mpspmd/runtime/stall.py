"""Stall: which ranks keep a call waiting, what they are in, and for how long."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from mpspmd.runtime.call import Call
from mpspmd.runtime.process import Usage
from mpspmd.runtime.progress import Progress, progress_of
from mpspmd.runtime.replies import Replies
from mpspmd.transport.channel import EngineChannel

logger = logging.getLogger(__name__)

_COLLECTIVE_FILES = ("torch/distributed/", "vllm/distributed/")
_MAIN_THREAD = "MainThread"

HELD = {
    psutil.STATUS_STOPPED: "stopped (kill -STOP, Ctrl-Z)",
    psutil.STATUS_TRACING_STOP: "held by a debugger (gdb, strace)",
}
"""The states in which a process does nothing, whatever comes; in words."""

# Asks all ranks for their stacks: a text for each, which says so if there is none.
AskForStacks = Callable[[Sequence[int]], dict[int, str]]


@dataclass(frozen=True)
class RankReport:
    """One rank in a stall."""

    progress: Progress
    state: str
    """The kernel's word for the process: running, sleeping, disk-sleep, stopped, tracing-stop; or
    gone."""
    cpu_s: float
    """CPU time that it has used during the last `over_s` seconds."""
    over_s: float
    stacks: str
    """Of all its threads; or why there are none."""

    @property
    def in_collective(self) -> bool:
        """Whether its main thread waits for other ranks, as far as its stack tells."""
        main = self.stacks.partition(_MAIN_THREAD)[2].partition("\n\n")[0]
        return any(part in main for part in _COLLECTIVE_FILES)

    def __str__(self) -> str:
        p = self.progress
        done = [name for name in ("read", "started", "finished", "replied") if getattr(p, name)]
        state = HELD.get(self.state, self.state)
        return (
            f"rank {p.rank} (pid {p.pid}): {p.place}; of this request: {', '.join(done) or 'not read'}; "
            f"process {state}, {self.cpu_s:.2f} s of CPU in the last {self.over_s:.1f} s; "
            f"{p.unread_bytes} bytes unread"
        )


@dataclass(frozen=True)
class StallReport:
    """Why a call isn't done. `str()` is one readable message."""

    method: str
    step: int
    seconds: float
    """Since the request was sent."""
    ring_bytes: int
    """The request ring's capacity."""
    ranks: tuple[RankReport, ...]

    @property
    def suspects(self) -> tuple[int, ...]:
        """The ranks that the others wait for, as far as can be known: those not done that don't wait
        in a collective themselves; all that aren't done, if all of those do."""
        undone = [rank for rank in self.ranks if not rank.progress.done]
        held = [rank for rank in undone if rank.state in HELD]
        awaited = held or [rank for rank in undone if not rank.in_collective] or undone
        return tuple(rank.progress.rank for rank in awaited)

    def __str__(self) -> str:
        awaited = ", ".join(map(str, self.suspects))
        text = [
            f"{self.method} (step {self.step}) is not done after {self.seconds:.1f} s; "
            + (f"waiting for rank {awaited}" if awaited else "all ranks have done it"),
            *(str(rank) for rank in self.ranks),
            f"the request ring holds {self.ring_bytes} bytes",
        ]
        for rank in self.ranks:
            if not rank.progress.done:
                text += ["", f"rank {rank.progress.rank}:", rank.stacks.rstrip()]
        return "\n".join(text)


class StallWatch:
    """Warns of calls that take long, and reports on those that have taken too long.

    `tick` is called by the supervisor; `report` by any thread, and it takes up to half a second when a
    rank doesn't answer.
    """

    def __init__(
        self,
        warn_s: float,
        channel: EngineChannel,
        replies: Replies,
        ask_for_stacks: AskForStacks,
        usage: Callable[[int], Usage | None],
    ) -> None:
        self._warn_s = warn_s
        self._channel = channel
        self._replies = replies
        self._ask_for_stacks = ask_for_stacks
        self._usage = usage
        self._samples: dict[int, tuple[int, float, float]] = {}  # rank: step, when, CPU time
        self._warned: tuple[int, float] = (-1, 0.0)  # a step, and when to warn of it again
        self._reporting: threading.Thread | None = None

    def tick(self) -> float:
        """Warns, in a thread of its own, of the oldest call. Returns the seconds until it is due."""
        call = self._replies.oldest()
        if call is None:
            return math.inf
        age_s = time.monotonic() - call.began
        step, next_s = self._warned
        if step != call.step:
            next_s = self._warn_s
            self._warned = (call.step, next_s)
        if age_s >= min(1.0, self._warn_s / 2) and call.step not in self._sampled_steps():
            self._sample(call)
        if age_s >= next_s and (self._reporting is None or not self._reporting.is_alive()):
            self._warned = (call.step, 2 * next_s)
            self._reporting = threading.Thread(
                target=self._warn, args=(call,), name="mpspmd-stall", daemon=True
            )
            self._reporting.start()
        return max(0.05, next_s - age_s)

    def report(self, call: Call) -> StallReport:
        """Where all ranks are with this call."""
        progress = progress_of(call, self._channel)
        self._sample(call, missing_only=True)
        stacks = self._ask_for_stacks([rank.rank for rank in progress if not rank.done])
        return StallReport(
            method=call.method,
            step=call.step,
            seconds=time.monotonic() - call.began,
            ring_bytes=self._channel.request_ring.capacity,
            ranks=tuple(self._report_rank(rank, stacks.get(rank.rank, "")) for rank in progress),
        )

    def _warn(self, call: Call) -> None:
        report = self.report(call)
        if not call.done:
            logger.warning("%s", report)

    def _sampled_steps(self) -> set[int]:
        return {step for step, _, _ in self._samples.values()}

    def _sample(self, call: Call, missing_only: bool = False) -> None:
        """Notes the CPU time that the ranks have used so far."""
        for rank in range(self._channel.request_ring.n_readers):
            if missing_only and self._samples.get(rank, (-1,))[0] == call.step:
                continue
            if (usage := self._usage(rank)) is not None:
                self._samples[rank] = (call.step, time.monotonic(), usage.cpu_s)

    def _report_rank(self, progress: Progress, stacks: str) -> RankReport:
        state, cpu_s, over_s = "gone", 0.0, 0.0
        _, since, before = self._samples.get(progress.rank, (-1, time.monotonic(), 0.0))
        if (usage := self._usage(progress.rank)) is not None:
            state = usage.state
            cpu_s = max(0.0, usage.cpu_s - before)
            over_s = time.monotonic() - since
        return RankReport(progress, state, cpu_s, over_s, stacks)
