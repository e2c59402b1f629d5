"""The straggler: the rank that the others wait for, step after step. Data in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from mpspmd.observe.records import Records

MIN_STEPS = 10
"""Fewer steps say nothing."""
_MIN_SHARE = 0.7
"""It comes last in so many of the steps,"""
_MIN_LATE_S = 200e-6
"""and so much later than the others in half of them: wake-ups alone make tens of microseconds."""
_MIN_LATE_PART = 0.03
"""It also makes so much of the time from step to step."""


@dataclass(frozen=True)
class Straggler:
    rank: int
    late_s: float
    """How much later than the other ranks it is ready, in the median step."""
    share: float
    """In which part of the steps it is the last."""
    steps: int


def straggler(records: Records) -> Straggler | None:
    """The rank to blame for the time of the steps; None if no rank is late again and again.

    A step's time is the same for all ranks if they wait for each other in it. So what counts is when each
    rank was ready: when its method had finished, less the time that it spent in `ctx.collective()`. The
    rank that waits least is ready last.
    """
    done = [rank[(rank["finished"] > 0) & (rank["received"] > 0)] for rank in records.ranks]
    # A rank on another machine has no records here.
    here = [rank for rank, table in enumerate(done) if len(table)]
    if len(here) < 2:
        return None
    steps = reduce(np.intersect1d, [done[rank]["step"] for rank in here])
    if len(steps) < MIN_STEPS:
        return None
    rows = [done[rank][np.isin(done[rank]["step"], steps)] for rank in here]
    ready = np.array([rank["finished"] - rank["collective"] for rank in rows])
    last = ready.argmax(axis=0)
    rank = int(np.bincount(last).argmax())
    late_ns = np.median(ready[rank] - np.median(np.delete(ready, rank, axis=0), axis=0))
    period_ns = (ready[rank][-1] - ready[rank][0]) / (len(steps) - 1)
    share = float((last == rank).mean())
    if share < _MIN_SHARE or late_ns < max(_MIN_LATE_S * 1e9, _MIN_LATE_PART * period_ns):
        return None
    return Straggler(here[rank], float(late_ns) / 1e9, share, len(steps))
