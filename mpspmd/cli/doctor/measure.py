"""The channel: measured by a few seconds of round trips between an engine and its ranks."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, ok, slow
from mpspmd.engine.engine import Engine
from mpspmd.errors import MpSpmdError
from mpspmd.rank.worker import Worker

_WARM_UP = 200
_SLOW_US = 1000.0


class Echo(Worker):
    """Returns its argument."""

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        return args[0]


def channel(plan: Plan, seconds: float) -> Finding:
    """Measures round trips of 64 bytes, one after the other, to which every rank replies."""
    payload = bytes(64)
    # The recording is for the run itself.
    config = dataclasses.replace(plan.config, record_requests=None)
    times: list[int] = []
    try:
        with Engine(Echo, world_size=plan.ranks, config=config) as engine:
            for _ in range(_WARM_UP):
                engine.collective_rpc("execute_model", (payload,))
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 2:  # quantiles() takes 2 or more
                began = time.perf_counter_ns()
                engine.collective_rpc("execute_model", (payload,))
                times.append(time.perf_counter_ns() - began)
    except (MpSpmdError, OSError) as error:
        return fails("channel", f"{type(error).__name__}: {error}")
    p50_us, p99_us = statistics.median(times) / 1e3, statistics.quantiles(times, n=100)[98] / 1e3
    found = (
        f"{plan.ranks} rank(s) answer 64 bytes in {p50_us:.0f} µs (median), {p99_us:.0f} µs (99 %), "
        f"{len(times)} times"
    )
    if p50_us > _SLOW_US:
        return slow("channel", found, "something else keeps the cores busy")
    return ok("channel", found)
