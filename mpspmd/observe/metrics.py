"""Metrics: totals of what engines and ranks have done, which grow as records are taken. Data only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mpspmd.observe.records import Records, Table
from mpspmd.observe.stats import EngineStats
from mpspmd.observe.straggler import straggler
from mpspmd.observe.summary import bubbles, idles, running

BUCKETS_S = tuple(float(f"{digit}e{power}") for power in range(-5, 2) for digit in (1, 2, 5))
"""From 10 µs to 50 s."""
MAX_METHODS = 30
"""More names count as "other"."""
_WAITS = ("spins", "yields", "parks")
_COUNTED = ("bytes_in", "bytes_out", "requests", "replies", *_WAITS)
_STRAGGLER_S = 15.0
"""The straggler is that of the steps of so many seconds."""


@dataclass
class Histogram:
    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(BUCKETS_S) + 1, np.int64)
    )
    """Of each bucket, and of what is larger."""
    total_s: float = 0.0

    def add(self, ns: npt.NDArray[Any]) -> None:
        seconds = ns / 1e9
        at = np.searchsorted(BUCKETS_S, seconds)
        self.counts += np.bincount(at, minlength=len(self.counts))
        self.total_s += float(seconds.sum())


_histograms: Callable[[], dict[Any, Histogram]] = partial(defaultdict, Histogram)


@dataclass
class Totals:
    """Of the engines that have had one slot, one after the other: they never get smaller."""

    steps: int = 0
    late_replies: int = 0
    missed: int = 0
    """Steps whose records were replaced before they were read."""
    step_s: dict[str, Histogram] = field(default_factory=_histograms)
    """By method: from the request to the last reply."""
    bubble_s: Histogram = field(default_factory=Histogram)
    waiting_s: dict[int, Histogram] = field(default_factory=_histograms)
    """By rank."""
    running_s: dict[tuple[int, str], Histogram] = field(default_factory=_histograms)
    """By rank and method."""
    counters: dict[tuple[int, str], int] = field(default_factory=partial(defaultdict, int))
    """By rank and name."""


class Meter:
    """Adds what is new of one engine to the totals. One thread."""

    def __init__(self, totals: Totals, stats: EngineStats, late: int, records: Records) -> None:
        """Only what is done from now on is counted."""
        self._totals = totals
        self._stats = stats
        self._late = late
        self._seen = _newest(records.engine)
        self._ranks_seen = [_newest(rank) for rank in records.ranks]

    def take(self, stats: EngineStats, late: int, records: Records) -> dict[int, float]:
        """Returns how many seconds each rank is later than the others: 0.0 for all but the straggler."""
        totals, before = self._totals, self._stats
        totals.steps += stats.steps - before.steps
        totals.late_replies += late - self._late
        for rank, earlier in zip(stats.ranks, before.ranks, strict=True):
            for name in _COUNTED:
                more = rank.counters[name] - earlier.counters[name]
                totals.counters[rank.rank, name] += max(0, more)
        self._stats, self._late = stats, late
        self._take_engine(records)
        for number, table in enumerate(records.ranks):
            self._take_rank(number, table, records)
        found = straggler(records.since(records.at_ns - int(_STRAGGLER_S * 1e9)))
        late_s = dict.fromkeys(range(len(records.ranks)), 0.0)
        return late_s if found is None else late_s | {found.rank: found.late_s}

    def _take_engine(self, records: Records) -> None:
        new = records.engine[records.engine["step"] > self._seen]
        if len(new):
            self._totals.missed += int(new["step"][0]) - self._seen - 1
        new = new[: _first(~_complete(new, records))]
        if not len(new):
            return
        last = records.engine[records.engine["step"] == self._seen]
        self._totals.bubble_s.add(bubbles(np.concatenate([last, new])))
        answered = new[(new["last"] > 0) & (new["sent"] > 0)]
        methods = _methods_of(answered, records)
        for index in np.unique(methods):
            name = self._name(records, 0, int(index))
            rows = answered[methods == index]
            self._totals.step_s[name].add(np.maximum(rows["last"] - rows["sent"], 0))
        self._seen = int(new["step"][-1])

    def _take_rank(self, number: int, table: Table, records: Records) -> None:
        seen = self._ranks_seen[number]
        new = table[table["step"] > seen]
        new = new[: _first(new["finished"] == 0)]
        if not len(new):
            return
        last = table[table["step"] == seen]
        self._totals.waiting_s[number].add(idles(np.concatenate([last, new])))
        for index in np.unique(new["method"]):
            name = self._name(records, number, int(index))
            self._totals.running_s[number, name].add(running(new[new["method"] == index]))
        self._ranks_seen[number] = int(new["step"][-1])

    def _name(self, records: Records, rank: int, index: int) -> str:
        name = records.method(rank, index)
        known = {method for _, method in self._totals.running_s} | self._totals.step_s.keys()
        return name if name and (name in known or len(known) < MAX_METHODS) else "other"


def _newest(table: Table) -> int:
    return int(table["step"][-1]) if len(table) else 0


def _first(wrong: npt.NDArray[np.bool_]) -> int:
    """The place of the first one; the length if there is none."""
    return int(wrong.argmax()) if wrong.any() else len(wrong)


def _complete(engine: Table, records: Records) -> npt.NDArray[np.bool_]:
    """Whether all ranks have finished each step, and all their replies have been taken."""
    finished = np.ones(len(engine), bool)
    replies = np.zeros(len(engine), np.int64)
    tables = [table for table in records.ranks if len(table)]
    if not tables:
        return np.zeros(len(engine), bool)
    # A rank on another machine has no records here.
    for table in tables:
        at, is_there = _places(engine, table)
        # A rank that has no record of a step hasn't begun it, or has gone on by more than it keeps.
        begun = engine["step"] <= _newest(table)
        finished &= np.where(is_there, table["finished"].take(at, mode="clip") > 0, begun)
        replies += is_there & (table["replied"].take(at, mode="clip") > 0)
    complete: npt.NDArray[np.bool_] = finished & (engine["replies"] >= replies)
    return complete


def _places(engine: Table, table: Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where a rank's table has each step of the engine's, and whether it has it."""
    at = np.searchsorted(table["step"], engine["step"])
    is_there = np.isin(engine["step"], table["step"])
    return at, is_there


def _methods_of(engine: Table, records: Records) -> npt.NDArray[np.int64]:
    """The method of each step, as rank 0 numbers them; 0 if it isn't known."""
    table = records.ranks[0]
    if not len(table):
        return np.zeros(len(engine), np.int64)
    at, is_there = _places(engine, table)
    found: npt.NDArray[np.int64] = np.where(is_there, table["method"].take(at, mode="clip"), 0)
    return found
