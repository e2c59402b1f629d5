"""Latency: measured by a few seconds of round trips between an engine and its ranks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from mpspmd.config import RuntimeConfig
from mpspmd.engine.engine import Engine
from mpspmd.rank.worker import Worker

_WARM_UP = 200


@dataclass(frozen=True)
class Latency:
    """Round trips of 64 bytes, one after the other, to which every rank replies; in µs."""

    count: int
    p50_us: float
    p99_us: float


class Echo(Worker):
    """Returns its argument."""

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        return args[0]


def measure_latency(ranks: int, seconds: float, config: RuntimeConfig) -> Latency:
    """Raises what Engine raises when it can't be started."""
    payload = bytes(64)
    times: list[int] = []
    with Engine(Echo, world_size=ranks, config=config) as engine:
        for _ in range(_WARM_UP):
            engine.collective_rpc("execute_model", (payload,))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter_ns()
            engine.collective_rpc("execute_model", (payload,))
            times.append(time.perf_counter_ns() - began)
    cuts = statistics.quantiles(times, n=100)
    return Latency(len(times), statistics.median(times) / 1e3, cuts[98] / 1e3)
