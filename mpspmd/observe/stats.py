"""What a run is doing, read from its shared memory: by `Engine.stats()`, and by watchers outside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mpspmd._ring import StatusPage

_NAMED = ("phase", "method", "step", "pid", "node", "since", "idle_ns", "has_died")
"""Entries of a status line that have a field of their own; all other numbers are counters."""


@dataclass(frozen=True)
class RankStats:
    """One rank at one moment."""

    rank: int
    pid: int
    """0 until its process has attached itself."""
    phase: str
    """loading, waiting, decoding, running or replying."""
    method: str
    """The method that it runs, or ran last."""
    step: int
    phase_s: float
    """Seconds since the phase began."""
    idle_s: float
    """Seconds that it has waited for requests, since its start."""
    lag_steps: int
    """Requests that the engine has sent and this rank has not begun."""
    unread_bytes: int
    """Bytes in the request ring that this rank has yet to read."""
    node: int = 0
    """The number of its machine; 0 is the engine's. `pid` is the process id on that machine."""
    counters: dict[str, int] = field(default_factory=dict)
    """Numbers of requests, replies, bytes and kinds of waits, since its start."""


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment. Ranks run on while they are read, so two of them may differ by a step."""

    pid: int
    steps: int
    """Requests sent."""
    ring_bytes: int
    """Capacity of the request ring."""
    ranks: tuple[RankStats, ...]
    late_replies: int = 0
    """Replies that came after their call had timed out or failed. Known only to the engine's process."""

    @property
    def world_size(self) -> int:
        return len(self.ranks)

    @property
    def ring_fill(self) -> float:
        """How full the request ring is, from 0 to 1: what its slowest reader has yet to read."""
        return max(rank.unread_bytes for rank in self.ranks) / self.ring_bytes


def read_stats(page: StatusPage, capacity: int, tail: int, heads: Sequence[int]) -> EngineStats:
    """The figures of a status page. `capacity` (bytes), `tail` and `heads` are the request ring's.

    `tail` was read before `heads`, so a head may be ahead of it.
    """
    steps = page.steps
    now = time.monotonic()
    ranks = []
    for rank, head in enumerate(heads):
        line = page.line(rank).snapshot()
        unread_bytes = max(0, tail - head)
        phase_s = max(0.0, now - line["since"]) if line["pid"] else 0.0
        ranks.append(
            RankStats(
                rank=rank,
                pid=line["pid"],
                phase=line["phase"],
                method=line["method"],
                step=line["step"],
                phase_s=phase_s,
                idle_s=line["idle_ns"] / 1e9 + (phase_s if line["phase"] == "waiting" else 0.0),
                lag_steps=max(0, steps - line["step"]) if unread_bytes else 0,
                unread_bytes=unread_bytes,
                node=line["node"],
                counters={
                    name: value
                    for name, value in line.items()
                    if name not in _NAMED and isinstance(value, int)
                },
            )
        )
    return EngineStats(page.engine_pid, steps, capacity, tuple(ranks))
