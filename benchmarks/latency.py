"""Latency: how long the round trips of one round took."""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from benchmarks.peers.peer import Peer

_WARM_UP_MIN = 50  # messages, because ranks have just been woken and caches are cold; but it ends
_WARM_UP_S = 0.2  # after this time, or
_WARM_UP_SHARE = 3  # after a third of the time that the counted messages may take


@dataclass(frozen=True)
class Latency:
    """Microseconds from before a request is encoded until its last reply has been decoded."""

    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float  # the longest, with fewer than a thousand messages
    messages: int

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Latency:
        ordered = sorted(nanoseconds)
        return cls(
            statistics.fmean(ordered) / 1e3,
            _percentile(ordered, 50) / 1e3,
            _percentile(ordered, 90) / 1e3,
            _percentile(ordered, 99) / 1e3,
            _percentile(ordered, 99.9) / 1e3,
            len(ordered),
        )


def measure(peer: Peer, request: object, messages: int, limit_s: float) -> Latency:
    """Times `messages` round trips, one at a time, or fewer if they take longer than `limit_s`.

    About as many that don't count come first. Main thread.
    """
    warm_up_s = min(_WARM_UP_S, limit_s / _WARM_UP_SHARE)
    peer.time_round_trips(request, max(_WARM_UP_MIN, messages), int(warm_up_s * 1e9))
    with no_garbage_collection():
        return Latency.of(peer.time_round_trips(request, messages, int(limit_s * 1e9)))


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Within, nothing is collected: a collection would walk through the modules of all peers."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def median(rounds: Sequence[Latency]) -> dict[str, float]:
    """The median of each figure over the rounds; `messages` is their sum."""
    figures: dict[str, float] = {
        field.name: round(statistics.median(getattr(one, field.name) for one in rounds), 3)
        for field in fields(Latency)
        if field.name != "messages"
    }
    figures["messages"] = sum(one.messages for one in rounds)
    return figures


def _percentile(ordered: Sequence[int], percent: float) -> int:
    """By nearest rank: the smallest value that so many percent of all values don't exceed."""
    return ordered[math.ceil(round(len(ordered) * percent / 100, 6)) - 1]
