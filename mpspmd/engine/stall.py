"""StallWatch: warns of calls and starts that take long, and reports which ranks they wait for."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mpspmd.engine.call import NO_REPLY, Call, CallTable
from mpspmd.engine.rank_stacks import Answer, RankStacks
from mpspmd.engine.ranks import Ranks
from mpspmd.errors import StepTimeout
from mpspmd.naming import rank_name
from mpspmd.processes.janitor import Janitor
from mpspmd.report import Progress, RankReport, StallReport
from mpspmd.threads import start_thread
from mpspmd.transport.channel import EngineChannel
from mpspmd.wire import ALL

logger = logging.getLogger(__name__)

START_NOTE_S = 5.0
"""A start that takes so long is logged, and again each time that its time has doubled."""


class StallWatch:
    """Only the supervisor's thread calls `tick` and `places`. Any other thread may call `report` and
    `timeout`, which take up to half a second when a rank doesn't answer."""

    def __init__(
        self,
        warn_s: float,
        channel: EngineChannel,
        table: CallTable,
        ranks: Ranks,
        stacks: RankStacks,
        janitor: Janitor,
    ) -> None:
        self._janitor = janitor
        self._warn_s = warn_s
        self._channel = channel
        self._table = table
        self._ranks = ranks
        self._stacks = stacks
        self._start_began = time.monotonic()
        self._start_next_s = START_NOTE_S
        self._samples: dict[int, tuple[int, float, float]] = {}  # rank: step, when, CPU time
        self._warned: tuple[int, float] = (-1, 0.0)  # a step, and when to warn of it again
        self._warning: threading.Thread | None = None

    def tick(self, *, starting: bool) -> float:
        """Warns of a start that goes on, or of the oldest call, if it is time to. Writes to the status page
        that this process runs, for those who watch it from outside.

        Returns the seconds until the next warning is due.
        """
        self._channel.status.beat(len(self._table.pending), self._table.late)
        return self._watch_start() if starting else self._watch_calls()

    def _watch_start(self) -> float:
        age_s = time.monotonic() - self._start_began
        if age_s >= self._start_next_s and self._warn_in_thread(self._warn_of_start, age_s):
            self._start_next_s *= 2
        return max(0.05, self._start_next_s - age_s)

    def _watch_calls(self) -> float:
        calls = self._table.all()
        if not calls:
            return math.inf
        call = calls[0]
        age_s = time.monotonic() - call.began
        step, next_s = self._warned
        if step != call.step:
            next_s = self._warn_s
            self._warned = (call.step, next_s)
        if age_s >= min(1.0, self._warn_s / 2) and call.step not in self._sampled_steps():
            self._sample(call)
        if age_s >= next_s and self._warn_in_thread(self._warn, call):
            self._warned = (call.step, 2 * next_s)
        return max(0.05, next_s - age_s)

    def _warn_in_thread(self, warn: Callable[..., None], *args: Any) -> bool:
        """Calls `warn`, which may wait for ranks, in a thread of its own. Returns False, and calls nothing,
        while an earlier warning is still being written."""
        if self._warning is not None and self._warning.is_alive():
            return False
        # Neither a start nor a run ends because no more threads can be had for a warning.
        with contextlib.suppress(RuntimeError):
            self._warning = start_thread(warn, *args, name="mpspmd-stall")
        return True

    def report(self, call: Call) -> StallReport:
        """How far each rank is with this call, with stacks of those that aren't done."""
        progress = progress_of(call, self._channel)
        self._sample(call, missing_only=True)
        undone = [rank.rank for rank in progress if not rank.done]
        done = [rank.rank for rank in progress if rank.done]
        answers = self._stacks.ask(undone, others=done)
        report = StallReport(
            method=call.method,
            step=call.step,
            seconds=time.monotonic() - call.began,
            ring_bytes=self._channel.request_ring.capacity,
            ranks=tuple(
                self._report_rank(rank, answers.get(rank.rank, Answer(""))) for rank in progress
            ),
        )
        return replace(report, dump=self._janitor.write_dump(report.headline, failed=False))

    def timeout(self, call: Call, what: str) -> StepTimeout:
        """The error of a call whose deadline has passed."""
        report = self.report(call)
        return StepTimeout(
            f"{call.method} (step {call.step}) timed out: {what}\n{report}", report=report
        )

    def _warn(self, call: Call) -> None:
        report = self.report(call)
        if not call.done:
            logger.warning("%s", report)

    def _sampled_steps(self) -> set[int]:
        # A copy: a report may add samples in another thread.
        return {step for step, _, _ in list(self._samples.values())}

    def _sample(self, call: Call, missing_only: bool = False) -> None:
        """Notes the CPU time that the ranks have used so far."""
        for rank in range(self._channel.request_ring.n_readers):
            if missing_only and self._samples.get(rank, (-1,))[0] == call.step:
                continue
            if (usage := self._ranks.usage(rank)) is not None:
                self._samples[rank] = (call.step, time.monotonic(), usage.cpu_s)

    def _report_rank(self, progress: Progress, answer: Answer) -> RankReport:
        state, cpu_s, over_s = "gone", 0.0, 0.0
        _, since, before = self._samples.get(progress.rank, (-1, time.monotonic(), 0.0))
        if (usage := self._ranks.usage(progress.rank)) is not None:
            state = usage.state
            cpu_s = max(0.0, usage.cpu_s - before)
            over_s = time.monotonic() - since
        return RankReport(progress, state, cpu_s, over_s, answer.stacks, answer.collectives)

    # While the ranks start.

    def places(self) -> list[str]:
        """What each rank is doing while the ranks start, and since when, in rank order. It reads the status
        page, and asks no rank."""
        return [self._place(rank) for rank in range(self._ranks.world_size)]

    def _place(self, rank: int) -> str:
        line, now = self._channel.status.line(rank).snapshot(), time.monotonic()
        if self._ranks.usage(rank) is None:
            return "gone"
        if line["pid"] == 0 and (node := self._ranks.node_awaited(rank)):
            return f"waits for {node} to join, for {now - self._start_began:.1f} s"
        if line["pid"] == 0:
            return f"importing for {now - self._start_began:.1f} s"
        where = "ready"
        if line["phase"] == "loading":
            where = "in its constructor" if line["method"] else "importing"
        return f"{where} for {now - line['since']:.1f} s"

    def _warn_of_start(self, age_s: float) -> None:
        processes, places = self._ranks.processes, self.places()
        ranks = [
            f"{rank_name(n, process.pid, process.node)} {place}"
            for n, (process, place) in enumerate(zip(processes, places, strict=True))
        ]
        text = f"not all ranks are ready after {age_s:.1f} s: {'; '.join(ranks)}"
        if age_s >= self._warn_s:
            for rank, answer in sorted(self._stacks.ask(self._loading()).items()):
                text += f"\n\nrank {rank}:\n{answer.stacks.rstrip()}"
        logger.warning("%s", text)

    def _loading(self) -> list[int]:
        """The ranks that are still loading and can be asked for their stacks. A rank whose pid isn't on the
        status page yet can't be asked: the signal for that would end it."""
        lines = [
            self._channel.status.line(rank).snapshot() for rank in range(self._ranks.world_size)
        ]
        return [n for n, line in enumerate(lines) if line["pid"] and line["phase"] == "loading"]


def progress_of(call: Call, channel: EngineChannel) -> list[Progress]:
    """How far each rank is with a call, in rank order. Any thread.

    It reads shared memory, and asks no rank: one that hangs couldn't answer while it holds its
    interpreter's lock.
    """
    now, tail = time.monotonic(), channel.request_ring.tail
    progress = []
    for rank, head in enumerate(channel.request_ring.heads):
        line = channel.status.line(rank).snapshot()
        phase = line["phase"]
        beyond, here = line["step"] > call.step, line["step"] == call.step
        finished = beyond or (here and phase in ("replying", "waiting"))
        # Nobody may have read its reply yet: a future's replies are read when somebody asks for them.
        ring = channel.reply_rings[rank]
        has_reply = call.replies[rank] is not NO_REPLY or (finished and ring.tail > min(ring.heads))
        awaited = call.ranks in (ALL, rank)
        progress.append(
            Progress(
                rank=rank,
                pid=line["pid"],
                phase=phase,
                method=line["method"],
                step=line["step"],
                seconds=max(0.0, now - line["since"]),
                read=beyond or here,
                started=beyond or (here and phase != "decoding"),
                finished=finished,
                awaited=awaited,
                replied=awaited and has_reply,
                unread_bytes=max(0, tail - head),
                node=line["node"],
            )
        )
    return progress
