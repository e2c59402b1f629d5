"""What a broadcast costs as the number of ranks grows: the writer, the last reader, and memory.

    python -m benchmarks.scaling --ranks 1,2,4,8,16,32,64

Of mpspmd's channels, with messages of --size raw bytes. `writer_us` is the time of one send when no
reader sleeps; the writer reads the readers' cursors only when the ring has filled. The other figures
have one process a rank, and all ranks sleep on the doorbell before each message. `writer_asleep_us` is
the time of a send that wakes all of them by FUTEX_WAKE, and `writer_cpu_us` is its CPU time, without the
time in which woken ranks had the writer's core. `first_reader_us` and `last_reader_us` are from before
the send until the first and the last rank has the message. `fits` says how each figure grows.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import mpspmd
from benchmarks.broadcast import Broadcast
from benchmarks.growth import Growth, fit
from benchmarks.latency import no_garbage_collection
from benchmarks.options import Parser, count, number, sizes
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results
from benchmarks.signals import deaths_raise, raise_if_interrupted, uninterrupted
from benchmarks.table import Column, figure, mebibytes, print_table, text
from benchmarks.tool import run_tool
from mpspmd._ring import Inbox, Ring, Writer
from mpspmd.transport.segment import Segment

_BATCH = 100
_RING_BYTES = 1 << 20


@dataclass(frozen=True)
class Options:
    ranks: list[int]
    rounds: int
    json: Path | None
    plot: Path | None
    size: list[int]
    messages: int
    gap_ms: float


@dataclass(frozen=True)
class Cost:
    """Microseconds: means over a round's messages, except the p99."""

    writer_us: float
    writer_asleep_us: float
    writer_cpu_us: float
    first_reader_us: float
    last_reader_us: float
    last_reader_p99_us: float


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("scaling", _parse(arguments), run, show)


def run(options: Options) -> Results:
    settings = {"ranks": options.ranks, "size_bytes": options.size[0], "gap_ms": options.gap_ms}
    results = new_results("scaling", options.rounds, options.messages, settings)
    with Progress(len(options.ranks) * (options.rounds + 1)) as progress:
        for ranks in options.ranks:
            rounds, memory = _measure(ranks, options, progress)
            key = {
                "transport": "mpspmd",
                "version": mpspmd.__version__,
                "ranks": ranks,
                "size_bytes": options.size[0],
            }
            figures = {
                field.name: round(statistics.median(getattr(one, field.name) for one in rounds), 3)
                for field in fields(Cost)
            }
            results["results"].append(key | figures | memory)
            results["per_round"].append(key | {"rounds": [asdict(one) for one in rounds]})
    results["fits"] = _fits(results["results"]) if len(options.ranks) > 1 else {}
    return results


def _measure(ranks: int, options: Options, progress: Progress) -> tuple[list[Cost], dict[str, int]]:
    payload = os.urandom(options.size[0])
    broadcast = Broadcast(ranks)
    try:
        with progress.step(f"starting {ranks} ranks"):
            broadcast.start()
        rounds = []
        for number in range(options.rounds):
            raise_if_interrupted()
            with (
                progress.step(f"ranks {ranks}: round {number + 1} of {options.rounds}"),
                deaths_raise(broadcast.pids, "mpspmd"),
                no_garbage_collection(),
            ):
                rounds.append(_round(broadcast, payload, options))
        return rounds, broadcast.memory()
    finally:
        with uninterrupted():
            broadcast.close()


def _round(broadcast: Broadcast, payload: bytes, options: Options) -> Cost:
    writer, work, first, last = [], [], [], []
    for _ in range(options.messages):
        time.sleep(options.gap_ms / 1e3)  # all ranks fall asleep
        worked = time.thread_time_ns()
        began = time.perf_counter_ns()
        broadcast.send(payload)
        writer.append(time.perf_counter_ns() - began)
        work.append(time.thread_time_ns() - worked)
        arrivals = [moment - began for moment in broadcast.arrivals()]
        first.append(min(arrivals))
        last.append(max(arrivals))
    return Cost(
        _awake_writer_us(len(broadcast.pids), payload, options.messages),
        statistics.fmean(writer) / 1e3,
        statistics.fmean(work) / 1e3,
        statistics.fmean(first) / 1e3,
        statistics.fmean(last) / 1e3,
        sorted(last)[-1 - len(last) // 100] / 1e3,
    )


def _awake_writer_us(ranks: int, payload: bytes, messages: int) -> float:
    """The mean time of a send when no reader sleeps: they are in this process, and read between batches."""
    segment = Segment.create(Ring.segment_bytes(_RING_BYTES, ranks))
    try:
        Ring.format(segment.fd, _RING_BYTES, ranks)
        ring = Ring(segment.fd)
    finally:
        segment.close()
    writer = Writer(ring)
    inboxes = [Inbox((ring,), slot) for slot in range(ranks)]
    taken = 0
    batches = max(1, messages // 10)
    for _ in range(batches):
        began = time.perf_counter_ns()
        for _ in range(_BATCH):
            writer.send(1, 0, payload)
        taken += time.perf_counter_ns() - began
        for inbox in inboxes:
            while (message := inbox.try_recv()) is not None:
                if isinstance(message[3], memoryview):
                    message[3].release()
                inbox.release()
    return taken / (batches * _BATCH) / 1e3


def _fits(rows: Sequence[Row]) -> dict[str, Growth]:
    ns = [row["ranks"] for row in rows]
    figures = (*(field.name for field in fields(Cost)), "shared_bytes", "private_bytes")
    return {name: fit(ns, [row[name] for row in rows]) for name in figures}


def columns(results: Results) -> list[Column]:
    return [
        text("ranks", "ranks"),
        text("transport", "transport"),
        text("version", "version"),
        figure("writer, all awake", "writer_us", 2),
        figure("writer, all asleep", "writer_asleep_us"),
        figure("its CPU time", "writer_cpu_us"),
        figure("first reader", "first_reader_us"),
        figure("last reader", "last_reader_us"),
        figure("its p99", "last_reader_p99_us"),
        mebibytes("shared MiB", "shared_bytes"),
        mebibytes("private MiB a rank", "private_bytes"),
    ]


def growth_lines(results: Results) -> list[str]:
    """One sentence for each figure."""
    return [
        f"{name} ≈ {line['a']:,.2f} + {line['b']:,.2f}·n (R² {line['r2']:.2f}); ~ n^{line['exponent']:.2f}"
        for name, line in results["fits"].items()
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "A broadcast by number of ranks, µs",
        f"medians of {results['rounds']} rounds of {results['messages_per_round']:,}; "
        f"{results['settings']['size_bytes']:,} bytes",
        (),
    )
    for line in growth_lines(results):
        print(line)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = Parser(
        "scaling",
        "A broadcast's cost by the number of ranks: writer, last reader, memory.",
        ranks="1,2,4,8,16,32,64",
        rounds=5,
    )
    parser.add("--size", sizes, "64", "BYTES", "of a message")
    parser.add("--messages", count, "100", "N", "how many are timed in each round")
    parser.add(
        "--gap-ms", number(0, 1000), "3", "MS", "before each message, so that ranks fall asleep"
    )
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
