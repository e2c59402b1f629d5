"""Summary: where the time of the recorded steps went. Data in, figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpspmd.observe.records import Records, Table
from mpspmd.observe.straggler import Straggler, straggler

Times = npt.NDArray[np.int64]
"""Nanoseconds."""


@dataclass(frozen=True)
class Spread:
    """Percentiles in seconds, of so many values."""

    n: int
    p50: float
    p90: float
    p99: float
    total: float


@dataclass(frozen=True)
class MethodTime:
    method: str
    steps: int
    running_s: float
    """In the method, without collectives: the mean over the ranks of the total."""
    collective_s: float


@dataclass(frozen=True)
class Summary:
    pid: int
    seconds: float
    """From the first request to the last thing that happened."""
    steps: int
    steps_per_s: float
    bubble: Spread | None
    """From a reply taken to the next request sent, while no request was under way."""
    idle: tuple[Spread | None, ...]
    """Of each rank: from the end of a method to the next request."""
    methods: tuple[MethodTime, ...]
    """Those that take most come first."""
    straggler: Straggler | None


def summarize(records: Records) -> Summary:
    sent = records.engine["sent"]
    sent = sent[sent > 0]
    seconds = max(0.0, (records.newest_ns - int(sent.min())) / 1e9) if len(sent) else 0.0
    return Summary(
        records.pid,
        seconds,
        len(sent),
        len(sent) / seconds if seconds else 0.0,
        spread(bubbles(records.engine)),
        tuple(spread(idles(rank)) for rank in records.ranks),
        _methods(records),
        straggler(records),
    )


def bubbles(engine: Table) -> Times:
    """One for each request that was sent when all replies so far had been taken, and at least one had."""
    engine = engine[engine["sent"] > 0]
    before = np.maximum.accumulate(engine["last"])[:-1] if len(engine) else engine["last"]
    gaps: Times = (engine["sent"][1:] - before)[before > 0]
    return gaps[gaps >= 0]


def idles(rank: Table) -> Times:
    """One for each request that came after another one."""
    ended = rank["finished"][:-1]
    gaps: Times = (rank["received"][1:] - ended)[(ended > 0) & (rank["received"][1:] > 0)]
    return np.maximum(gaps, 0)


def running(rank: Table) -> Times:
    """What each method took, without collectives."""
    done = rank[(rank["started"] > 0) & (rank["finished"] > 0)]
    took: Times = done["finished"] - done["started"] - done["collective"]
    return took


def spread(ns: npt.NDArray[Any]) -> Spread | None:
    if not len(ns):
        return None
    p50, p90, p99 = (float(value) / 1e9 for value in np.percentile(ns, (50, 90, 99)))
    return Spread(len(ns), p50, p90, p99, float(ns.sum()) / 1e9)


def _methods(records: Records) -> tuple[MethodTime, ...]:
    totals: dict[str, tuple[int, float, float]] = {}
    for rank, table in enumerate(records.ranks):
        done = table[(table["started"] > 0) & (table["finished"] > 0)]
        for index in np.unique(done["method"]):
            name = records.method(rank, int(index)) or "(others)"
            rows = done[done["method"] == index]
            steps, ran_s, waited_s = totals.get(name, (0, 0.0, 0.0))
            ran_s += float(running(rows).sum()) / 1e9
            waited_s += float(rows["collective"].sum()) / 1e9
            totals[name] = max(steps, len(rows)), ran_s, waited_s
    n = len(records.ranks)
    found = [
        MethodTime(name, steps, ran_s / n, waited_s / n)
        for name, (steps, ran_s, waited_s) in totals.items()
    ]
    return tuple(sorted(found, key=lambda each: -each.running_s - each.collective_s))
