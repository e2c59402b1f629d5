"""What a run is doing, read from its shared memory: for `Engine.stats()`, and for who watches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpspmd._ring import StatusPage

if TYPE_CHECKING:
    from mpspmd._ring import LineSnapshot

_NAMED = ("phase", "method", "step", "pid", "since", "idle_ns")


@dataclass(frozen=True)
class RankStats:
    """One rank at one moment. The counters count from its start."""

    rank: int
    pid: int
    """0 until its process is there."""
    phase: str
    """loading, waiting, decoding, running or replying."""
    method: str
    """What it runs, or ran last."""
    step: int
    phase_s: float
    """Seconds since the phase began."""
    idle_s: float
    """Seconds that it has waited for requests, in all."""
    lag_steps: int
    """Requests that the engine has sent and that this rank has not begun."""
    unread_bytes: int
    """What of the request ring this rank has yet to read."""
    counters: dict[str, int] = field(default_factory=dict)
    """Requests, replies, bytes, and how waits have ended."""


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment. Its ranks go on meanwhile: figures of two ranks may be a step apart."""

    pid: int
    steps: int
    """Requests sent."""
    ring_bytes: int
    """Capacity of the request ring."""
    ranks: tuple[RankStats, ...]

    @property
    def world_size(self) -> int:
        return len(self.ranks)

    @property
    def ring_fill(self) -> float:
        """How full the request ring is, 0 to 1: what its slowest reader has yet to read."""
        return max(rank.unread_bytes for rank in self.ranks) / self.ring_bytes


def read_stats(page: StatusPage, capacity: int, tail: int, heads: Sequence[int]) -> EngineStats:
    """`tail` and `heads` are the request ring's, taken in this order: heads may be newer."""
    steps = page.steps
    now = time.monotonic()
    ranks = []
    for rank, head in enumerate(heads):
        line = page.line(rank).snapshot()
        ranks.append(_rank_stats(rank, line, steps, max(0, tail - head), now))
    return EngineStats(page.engine_pid, steps, capacity, tuple(ranks))


def _rank_stats(
    rank: int, line: LineSnapshot, steps: int, unread_bytes: int, now: float
) -> RankStats:
    phase_s = max(0.0, now - line["since"]) if line["pid"] else 0.0
    # Whatever else the line counts is shown as it is.
    counters = {
        name: value for name, value in line.items() if name not in _NAMED and isinstance(value, int)
    }
    return RankStats(
        rank=rank,
        pid=line["pid"],
        phase=line["phase"],
        method=line["method"],
        step=line["step"],
        phase_s=phase_s,
        idle_s=line["idle_ns"] / 1e9 + (phase_s if line["phase"] == "waiting" else 0.0),
        lag_steps=max(0, steps - line["step"]) if unread_bytes else 0,
        unread_bytes=unread_bytes,
        counters=counters,
    )
