"""What one round of paced messages, or of silence, takes: latency, and CPU time."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cpu import Usage
from benchmarks.latency import Latency, median, no_garbage_collection
from benchmarks.pacing import Metronome
from benchmarks.peers.peer import Peer

_LAST_MESSAGES = 50  # sent in a row before a silence


@dataclass(frozen=True)
class Paced:
    """Latencies are round trips; if ranks work before they reply, from the end of their work on."""

    latency: Latency
    engine_cpu_pct: float  # of one core: sending, and waiting for replies
    rank_cpu_pcts: list[float]


def measure_paced(peer: Peer, ranks: int, gaps: Sequence[float], warm_up: int) -> Paced:
    """A message after each gap; the first `warm_up` of them don't count. The engine sleeps in between,
    and no figure has the cost of that.
    """
    request = [0.0] * ranks
    metronome = Metronome()
    for gap in gaps[:warm_up]:
        metronome.wait(gap)
        peer.round_trip(request)
    taken: list[int] = []
    with no_garbage_collection():
        spent = _Spent(peer.pids[:ranks], metronome)
        for gap in gaps[warm_up:]:
            metronome.wait(gap)
            began = time.perf_counter_ns()
            peer.round_trip(request)
            taken.append(time.perf_counter_ns() - began)
        return Paced(Latency.of(taken), *spent.percentages())


def measure_working(peer: Peer, ranks: int, gaps: Sequence[float], warm_up: int) -> Paced:
    """The ranks work for each gap before they reply, and the engine waits for them. A latency is from
    the end of the last rank's work until the engine has its reply.
    """
    for gap in gaps[:warm_up]:
        peer.round_trip([gap] * ranks)
    taken: list[int] = []
    with no_garbage_collection():
        spent = _Spent(peer.pids[:ranks], Metronome())
        for gap in gaps[warm_up:]:
            replies = peer.round_trip([gap] * ranks)
            ended = time.perf_counter_ns()
            taken.append(ended - max(reply for reply in replies if isinstance(reply, int)))
        return Paced(Latency.of(taken), *spent.percentages())


@dataclass(frozen=True)
class Idle:
    """The cost of waiting: percent of one core, and context switches a second. First the engine waits
    for ranks that work; then ranks wait for an engine that sleeps.
    """

    engine_cpu_pct: float
    rank_cpu_pcts: list[float]
    engine_switches_per_s: float
    rank_switches_per_s: list[float]


def measure_idle(peer: Peer, ranks: int, seconds: float) -> Idle:
    """Lets each side wait for `seconds`, each time after some messages that don't count."""
    idle = [0.0] * ranks
    for _ in range(_LAST_MESSAGES):
        peer.round_trip(idle)
    before = Usage.of(os.getpid())
    peer.round_trip([seconds] * ranks)
    engine = _since(before, Usage.of(os.getpid()), seconds)
    for _ in range(_LAST_MESSAGES):
        peer.round_trip(idle)
    pids = peer.pids[:ranks]
    befores = [Usage.of(pid) for pid in pids]
    time.sleep(seconds)
    usages = [
        _since(before, Usage.of(pid), seconds) for pid, before in zip(pids, befores, strict=True)
    ]
    return Idle(engine[0], [cpu for cpu, _ in usages], engine[1], [rate for _, rate in usages])


def _since(before: Usage, after: Usage, seconds: float) -> tuple[float, float]:
    return (
        (after.cpu_ns - before.cpu_ns) / seconds / 1e7,
        (after.switches - before.switches) / seconds,
    )


class _Spent:
    """CPU time since it was made, in percent of one core."""

    def __init__(self, pids: Sequence[int], metronome: Metronome) -> None:
        self._pids = pids
        self._metronome = metronome
        self._before = [Usage.of(pid).cpu_ns for pid in pids]
        metronome.cpu_ns = 0
        self._began = time.perf_counter_ns()
        self._engine = time.process_time_ns()

    def percentages(self) -> tuple[float, list[float]]:
        """The engine's, without the metronome's share; and each rank's."""
        engine = time.process_time_ns() - self._engine - self._metronome.cpu_ns
        elapsed = time.perf_counter_ns() - self._began
        after = [Usage.of(pid).cpu_ns for pid in self._pids]
        ranks = [now - before for now, before in zip(after, self._before, strict=True)]
        return 100 * max(0, engine) / elapsed, [100 * taken / elapsed for taken in ranks]


def paced_figures(rounds: Sequence[Paced]) -> dict[str, object]:
    """Medians over the rounds. `rank_cpu_pct` is the busiest rank's."""
    return {
        **median([one.latency for one in rounds]),
        **_cpu(rounds),
    }


def idle_figures(rounds: Sequence[Idle]) -> dict[str, object]:
    engine = statistics.median(one.engine_switches_per_s for one in rounds)
    ranks = [
        statistics.median(rates)
        for rates in zip(*(one.rank_switches_per_s for one in rounds), strict=True)
    ]
    return {
        **_cpu(rounds),
        "engine_switches_per_s": round(engine, 2),
        "rank_switches_per_s": round(max(ranks), 2),
    }


def _cpu(rounds: Sequence[Paced] | Sequence[Idle]) -> dict[str, object]:
    ranks = [
        statistics.median(rank) for rank in zip(*(one.rank_cpu_pcts for one in rounds), strict=True)
    ]
    return {
        "engine_cpu_pct": round(statistics.median(one.engine_cpu_pct for one in rounds), 3),
        "rank_cpu_pct": round(max(ranks), 3),
        "rank_cpu_pcts": [round(rank, 3) for rank in ranks],
    }
