"""mpspmd-metrics: what this user's engines do, for Prometheus."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpspmd.cli.typer_command import Version, run_command
from mpspmd.machine.network import host_and_port
from mpspmd.observe.discovery import Watched, find_engines
from mpspmd.observe.health import health_of
from mpspmd.observe.metrics import BUCKETS_S, Histogram, Meter, Totals
from mpspmd.observe.records import parse
from mpspmd.observe.stats import EngineStats

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_FIND_EVERY_S = 5.0
_LEAST_S = 0.1
_WAKES = {"spins": "spin", "yields": "yield", "parks": "park"}


def metrics(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="An engine's process id; else all.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9464,
    address: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    interval: Annotated[
        float, typer.Option(min=0.01, max=60, help="Seconds between two readings.")
    ] = 1.0,
    stalled_after: Annotated[
        float, typer.Option(min=0.1, help="As for mpspmd-alive, in seconds.")
    ] = 60.0,
    version: Version = False,
) -> int:
    """Serves metrics of all engines of this user at http://127.0.0.1:9464/metrics, until it is ended.

    It reads everything from shared memory.

    The label `engine` counts the engines. When one ends, the next one gets its number and its counters.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        print(
            "mpspmd-metrics: needs prometheus_client: pip install 'mpspmd[metrics]'",
            file=sys.stderr,
        )
        return 1
    engines = _Engines(run, stalled_after)
    registry = CollectorRegistry()
    registry.register(engines)
    try:
        server, _ = start_http_server(port, address, registry)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host has such a name
        why = getattr(error, "strerror", None) or error
        print(f"mpspmd-metrics: {address}:{port}: {why}", file=sys.stderr)
        return 1
    print(f"http://{host_and_port(address, server.server_port)}/metrics", flush=True)
    find_at = 0.0
    while True:
        if time.monotonic() >= find_at:
            engines.find()
            find_at = time.monotonic() + _FIND_EVERY_S
        time.sleep(min(interval, engines.read()))


@dataclass
class _Slot:
    """The engines that have had this number, one after the other."""

    totals: Totals = field(default_factory=Totals)
    engine: Watched | None = None
    meter: Meter | None = None
    stats: EngineStats | None = None
    alive: bool = False
    late_s: dict[int, float] = field(default_factory=dict)


class _Engines:
    """Reads all engines in one thread, and is asked for their metrics in others."""

    def __init__(self, only: int | None, stalled_after_s: float) -> None:
        self._only = only
        self._stalled_after_s = stalled_after_s
        self._slots: list[_Slot] = []
        self._lock = threading.Lock()

    def find(self) -> None:
        try:
            there = {engine.key: engine for engine in find_engines(self._only).engines}
        except OSError:
            return  # of this process: too many open files, for example
        with self._lock:
            for slot in self._slots:
                if slot.engine is None:
                    continue
                if slot.engine.key in there:
                    there.pop(slot.engine.key).close()
                else:
                    slot.engine.close()
                    slot.engine = slot.meter = slot.stats = None
            for engine in there.values():
                free = next((slot for slot in self._slots if slot.engine is None), None)
                if free is None:
                    free = _Slot()
                    self._slots.append(free)
                free.engine = engine

    def read(self) -> float:
        """Returns in how many seconds half of the records of the busiest engine may be new."""
        soon = 60.0
        with self._lock:
            for slot in self._slots:
                if slot.engine is None:
                    continue
                stats = slot.stats = slot.engine.read()
                _, _, late = slot.engine.page.last_beat
                slot.alive = health_of(slot.engine, self._stalled_after_s).alive
                recorder = slot.engine.recorder
                if recorder is None:
                    continue
                records = parse(recorder.copy(), time.monotonic_ns())
                if slot.meter is None:
                    slot.meter = Meter(slot.totals, stats, late, records)
                    soon = _LEAST_S
                    continue
                slot.late_s = slot.meter.take(stats, late, records)
                times = records.engine["sent"]
                if len(times) > 1 and (took_s := float(times[-1] - times[0]) / 1e9) > 0:
                    soon = min(soon, max(_LEAST_S, took_s / len(times) * recorder.n_steps / 2))
        return soon

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client, in a thread of its server."""
        with self._lock:
            yield from _metrics(self._slots)


def _metrics(slots: list[_Slot]) -> list[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    def family(kind: Any, name: str, text: str, *labels: str) -> Any:
        return kind(f"mpspmd_{name}", text, labels=("engine", *labels))

    histogram = partial(family, HistogramMetricFamily)
    counter = partial(family, CounterMetricFamily)
    gauge = partial(family, GaugeMetricFamily)
    step = histogram("step_seconds", "From a request to its last reply.", "method")
    bubble = histogram(
        "bubble_seconds", "From a reply taken to the next request, with none under way."
    )
    waiting = histogram(
        "rank_waiting_seconds", "From the end of a method to the next request.", "rank"
    )
    run = histogram(
        "rank_running_seconds", "In a method, without ctx.collective().", "rank", "method"
    )
    steps = counter("steps", "Requests sent.")
    late = counter("late_replies", "Replies after their call had failed.")
    missed = counter("missed_steps", "Steps that are in no histogram.")
    sent = counter("bytes", "Of requests and replies.", "rank", "direction")
    wakes = counter("wakes", "Ends of waits, by how it waited.", "rank", "how")
    alive = gauge("alive", "As mpspmd-alive.")
    fill = gauge("ring_fill_ratio", "Request ring.")
    lag = gauge(
        "straggler_seconds",
        "How much later than the others the straggler is ready; 0 for the others.",
        "rank",
    )
    for number, slot in enumerate(slots):
        engine, totals = str(number), slot.totals
        for method, found in totals.step_s.items():
            _add(step, (engine, method), found)
        _add(bubble, (engine,), totals.bubble_s)
        for rank, found in totals.waiting_s.items():
            _add(waiting, (engine, str(rank)), found)
        for (rank, method), found in totals.running_s.items():
            _add(run, (engine, str(rank), method), found)
        steps.add_metric((engine,), totals.steps)
        late.add_metric((engine,), totals.late_replies)
        missed.add_metric((engine,), totals.missed)
        for (rank, name), count in totals.counters.items():
            if name in _WAKES:
                wakes.add_metric((engine, str(rank), _WAKES[name]), count)
            elif name.startswith("bytes"):
                direction = "request" if name == "bytes_in" else "reply"
                sent.add_metric((engine, str(rank), direction), count)
        if slot.stats is not None:
            alive.add_metric((engine,), slot.alive)
            fill.add_metric((engine,), slot.stats.ring_fill)
            for rank, seconds in slot.late_s.items():
                lag.add_metric((engine, str(rank)), seconds)
    return [step, bubble, waiting, run, steps, late, missed, sent, wakes, alive, fill, lag]


def _add(family: Any, labels: tuple[str, ...], found: Histogram) -> None:
    edges = (*(str(edge) for edge in BUCKETS_S), "+Inf")
    counts = found.counts.cumsum()
    family.add_metric(
        labels, [(edge, int(n)) for edge, n in zip(edges, counts, strict=True)], found.total_s
    )


def main() -> None:
    examples = "mpspmd-metrics; mpspmd-metrics --port 9464 --address 0.0.0.0"
    sys.exit(run_command(metrics, "mpspmd-metrics", examples))
