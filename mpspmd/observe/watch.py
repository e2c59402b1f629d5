"""Watcher: what engines and ranks do, as rates between two readings of their shared memory."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

import psutil

from mpspmd.observe.discovery import Key, Watched, find_engines
from mpspmd.observe.records import parse
from mpspmd.observe.stats import RankStats
from mpspmd.observe.straggler import Straggler, straggler
from mpspmd.observe.summary import Spread, bubbles, spread

_RECORDED_S = 5.0
"""Bubble and straggler are of the steps of so many seconds: few slow steps say nothing."""


@dataclass(frozen=True)
class RankView:
    """A rank at a reading, with rates since the reading before."""

    stats: RankStats
    steps_per_s: float
    busy_percent: float
    """The share of the time in which it didn't wait for requests."""
    cpu_percent: float | None
    """Of one core; None when it can't be read."""
    memory_bytes: int | None
    """Resident; None when it can't be read."""

    @property
    def state(self) -> str:
        """loading, idle, or the method that it is in."""
        phase = self.stats.phase
        if phase in ("loading", "waiting"):
            return "idle" if phase == "waiting" else phase
        return self.stats.method or phase


@dataclass(frozen=True)
class EngineView:
    """An engine at a reading, with rates since the reading before."""

    pid: int
    command: str
    steps: int
    steps_per_s: float
    ring_fill: float
    cpu_percent: float | None
    memory_bytes: int | None
    bubble: Spread | None
    """From a reply taken to the next request sent; None if nothing was recorded."""
    straggler: Straggler | None
    ranks: tuple[RankView, ...]


class Watcher:
    """Finds this user's engines and reads them, time after time. One thread."""

    def __init__(self, pid: int | None = None) -> None:
        self._only = pid
        self._known: dict[Key, _Known] = {}
        self.unreadable: list[int] = []
        """Processes of this user whose descriptors may not be read, at the last find()."""
        self.foreign: list[int] = []
        """Engines of other versions of mpspmd."""

    def find(self) -> None:
        """Adds engines that are new, and drops those that have ended."""
        found = find_engines(self._only)
        self.unreadable, self.foreign = found.unreadable, found.foreign
        for engine in found.engines:
            if engine.key in self._known:
                engine.close()
            else:
                self._known[engine.key] = _Known(engine)
        for key in self._known.keys() - {engine.key for engine in found.engines}:
            self._known.pop(key).watched.close()

    def read(self) -> list[EngineView]:
        """All engines, the busiest first. Rates are since the last call, or since the engine was found."""
        views = [known.read() for known in self._known.values()]
        return sorted(views, key=lambda view: (-view.steps_per_s, view.pid))


class _Known:
    """An engine, and what the last reading of it said."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self._stats, self._at = watched.read(), time.monotonic()
        self._processes: dict[int, psutil.Process] = {}
        here = (rank.pid for rank in self._stats.ranks if rank.node == 0)
        for pid in (self._stats.pid, *here):
            self._usage(pid)  # psutil measures from the first call on

    def read(self) -> EngineView:
        before, then = self._stats, self._at
        stats, self._at = self.watched.read(), time.monotonic()
        self._stats = stats
        seconds = max(self._at - then, 1e-6)
        recorded = self._recorded(self._at - max(seconds, _RECORDED_S))
        return EngineView(
            stats.pid,
            self._command(stats.pid),
            stats.steps,
            (stats.steps - before.steps) / seconds,
            stats.ring_fill,
            *self._usage(stats.pid),
            *recorded,
            tuple(
                self._rank_view(rank, earlier, seconds)
                for rank, earlier in zip(stats.ranks, before.ranks, strict=True)
            ),
        )

    def _recorded(self, since: float) -> tuple[Spread | None, Straggler | None]:
        if self.watched.recorder is None:
            return None, None
        records = parse(self.watched.recorder.copy(), int(self._at * 1e9)).since(int(since * 1e9))
        return spread(bubbles(records.engine)), straggler(records)

    def _rank_view(self, rank: RankStats, before: RankStats, seconds: float) -> RankView:
        idle = 0.0 if rank.phase == "loading" else (rank.idle_s - before.idle_s) / seconds
        return RankView(
            rank,
            (rank.step - before.step) / seconds,
            100 * min(1.0, max(0.0, 1 - idle)),
            *(self._usage(rank.pid) if rank.node == 0 else (None, None)),
        )

    def _process(self, pid: int) -> psutil.Process:
        if pid not in self._processes:
            self._processes[pid] = psutil.Process(pid)
        process = self._processes[pid]
        if not process.is_running():  # another process may have its number by now
            raise psutil.NoSuchProcess(pid)
        return process

    def _usage(self, pid: int) -> tuple[float | None, int | None]:
        """CPU in percent of a core since the last call for this process, and memory in bytes; or None."""
        with contextlib.suppress(psutil.Error):
            process = self._process(pid)
            return process.cpu_percent(None), int(process.memory_info().rss)
        return None, None

    def _command(self, pid: int) -> str:
        with contextlib.suppress(psutil.Error):
            # A path may have bytes that are no UTF-8, and JSON can't hold them.
            return os.fsencode(" ".join(self._process(pid).cmdline())).decode(errors="replace")
        return "?"
