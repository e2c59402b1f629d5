"""StartWatch: logs what the ranks are doing if they take long to start."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from mpspmd.engine.rank_stacks import RankStacks
from mpspmd.engine.ranks import Ranks
from mpspmd.naming import rank_name
from mpspmd.threads import start_thread
from mpspmd.transport.channel import EngineChannel

logger = logging.getLogger(__name__)

START_NOTE_S = 5.0
"""After so long, and each time that has doubled, a start that isn't done is logged."""


class StartWatch:
    """`tick` and `places`: the supervisor's thread. They read the status page, and ask no rank."""

    def __init__(
        self, warn_s: float, channel: EngineChannel, ranks: Ranks, stacks: RankStacks
    ) -> None:
        """After `warn_s` seconds the log lines have stacks."""
        self._warn_s = warn_s
        self._status = channel.status
        self._ranks = ranks
        self._stacks = stacks
        self._began = time.monotonic()
        self._next_s = START_NOTE_S
        self._logging: threading.Thread | None = None

    def tick(self) -> float:
        """Logs, in a thread of its own, if it is time to. Returns the seconds until the next time."""
        age_s = time.monotonic() - self._began
        if age_s >= self._next_s and (self._logging is None or not self._logging.is_alive()):
            self._next_s *= 2
            # A start doesn't fail because no more threads can be had for a line of the log.
            with contextlib.suppress(RuntimeError):
                self._logging = start_thread(self._log, age_s, name="mpspmd-stall")
        return max(0.05, self._next_s - age_s)

    def places(self) -> list[str]:
        """What each rank is doing and since when, in rank order."""
        return [self._place(rank) for rank in range(self._ranks.world_size)]

    def _place(self, rank: int) -> str:
        line, now = self._status.line(rank).snapshot(), time.monotonic()
        if self._ranks.usage(rank) is None:
            return "gone"
        if line["pid"] == 0 and (node := self._ranks.node_awaited(rank)):
            return f"waits for {node} to join, for {now - self._began:.1f} s"
        if line["pid"] == 0:
            return f"importing for {now - self._began:.1f} s"
        where = "ready"
        if line["phase"] == "loading":
            where = "in its constructor" if line["method"] else "importing"
        return f"{where} for {now - line['since']:.1f} s"

    def _log(self, age_s: float) -> None:
        processes, places = self._ranks.processes, self.places()
        ranks = [
            f"{rank_name(n, process.pid, process.node)} {place}"
            for n, (process, place) in enumerate(zip(processes, places, strict=True))
        ]
        text = f"not all ranks are ready after {age_s:.1f} s: {'; '.join(ranks)}"
        if age_s >= self._warn_s:
            for rank, answer in sorted(self._stacks.ask(self._attached()).items()):
                text += f"\n\nrank {rank}:\n{answer.stacks.rstrip()}"
        logger.warning("%s", text)

    def _attached(self) -> list[int]:
        """The ranks that are still loading, and that can be asked: earlier, the signal that asks for stacks
        would end them."""
        lines = [self._status.line(rank).snapshot() for rank in range(self._ranks.world_size)]
        return [n for n, line in enumerate(lines) if line["pid"] and line["phase"] == "loading"]
