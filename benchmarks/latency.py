"""Latency: how long the round trips of one round took."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.peer import Peer

_WARM_UP_SHARE = 10  # one uncounted message for this many counted ones,
_WARM_UP_MIN = 50  # but at least so many: ranks have just been woken, and caches are cold


@dataclass(frozen=True)
class Latency:
    """Microseconds from before the request is encoded until the last reply is decoded."""

    mean_us: float
    p50_us: float
    p99_us: float


def measure(peer: Peer, request: object, messages: int) -> Latency:
    """One message at a time, `messages` times, after a warm-up. Engine's main thread.

    The clock and the loop are in each figure: about 0.1 µs. The engine's garbage collector doesn't
    run: it would look through other peers' modules.
    """
    round_trip = peer.round_trip
    clock = time.perf_counter_ns
    for _ in range(max(_WARM_UP_MIN, messages // _WARM_UP_SHARE)):
        round_trip(request)
    nanoseconds = [0] * messages
    gc.collect()
    gc.disable()
    try:
        for i in range(messages):
            began = clock()
            round_trip(request)
            nanoseconds[i] = clock() - began
    finally:
        gc.enable()
    nanoseconds.sort()
    return Latency(
        statistics.fmean(nanoseconds) / 1e3,
        _percentile(nanoseconds, 50) / 1e3,
        _percentile(nanoseconds, 99) / 1e3,
    )


def median(rounds: Sequence[Latency]) -> Latency:
    """Each figure's median over the rounds."""
    return Latency(
        statistics.median(latency.mean_us for latency in rounds),
        statistics.median(latency.p50_us for latency in rounds),
        statistics.median(latency.p99_us for latency in rounds),
    )


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """By nearest rank: the smallest value that so many percent of all don't exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
