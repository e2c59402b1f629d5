"""Starting vLLM with a tiny model, and stopping it: `mp` beside `mp-spmd`.

    python -m benchmarks.start_stop --tp 2 --json FILE

In each round both backends are started and stopped in turn, another one first each time, with the same
settings. A start is the call of `LLM(...)`. A stop begins with the shutdown of the engine and ends when
all its processes are gone. In a row `start_vs_mp` and `stop_vs_mp` are the medians as shares of mp's,
`start_cpu_s` the CPU seconds of all processes for a start: on a busy machine they say more than the time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.options import ToolParser, counts
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import in_turn
from benchmarks.signals import raise_if_interrupted, uninterrupted
from benchmarks.table import Column, figure, print_table, text
from benchmarks.tool import run_tool
from benchmarks.vllm_engines import VERSIONS, Engine
from benchmarks.vllm_model import tiny_model

_GONE_WITHIN_S = 60.0


@dataclass(frozen=True)
class Options:
    tp: list[int]
    rounds: int
    json: Path | None
    plot: Path | None


class Times(NamedTuple):
    """Of one engine, in seconds."""

    start: float
    start_cpu: float
    stop: float


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser(
        "start_stop", "How long vLLM takes to start and to stop, with a tiny model."
    )
    parser.add("--tp", counts, "2", "N,N", "how many ranks")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("start_stop", parse(arguments), run, show)


def run(options: Options) -> Results:
    results = new_results("start_stop", options.rounds, 1, {"tp": options.tp})
    steps = len(options.tp) * (1 + options.rounds) * len(VERSIONS)
    with tiny_model() as model, Progress(steps) as progress:
        for tp in options.tp:
            found: dict[str, list[Times]] = {backend: [] for backend in VERSIONS}
            # The first round fills caches, and isn't counted.
            for turn in range(options.rounds + 1):
                for backend in in_turn(list(VERSIONS), turn):
                    raise_if_interrupted()
                    with progress.step(f"TP {tp}, round {turn}: {backend}"):
                        times = _start_and_stop(backend, model, tp)
                    if turn:
                        found[backend].append(times)
            results["results"] += [_row(backend, tp, found) for backend in VERSIONS]
            save(results, options.json)
    return results


def _start_and_stop(backend: str, model: Path, tp: int) -> Times:
    engine = Engine(backend)
    try:
        cpu = engine.cpu_seconds()
        began = time.perf_counter()
        try:
            engine.start(model, tp, batch=8)
        except Exception as error:
            raise BenchmarkError(f"{backend} can't be started: {error}") from error
        start_s, start_cpu_s = time.perf_counter() - began, engine.cpu_seconds() - cpu
        processes = [each for each in map(psutil.Process, engine.pids) if not _is_tracker(each)]
    finally:
        with uninterrupted():
            stopping = time.perf_counter()
            engine.close()
    _, alive = psutil.wait_procs(processes, _GONE_WITHIN_S)
    if alive:
        raise BenchmarkError(f"{backend} has left processes: {[each.pid for each in alive]}")
    return Times(start_s, start_cpu_s, time.perf_counter() - stopping)


def _is_tracker(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's resource tracker, which stays as long as this process does."""
    return "resource_tracker" in " ".join(process.cmdline())


def _row(backend: str, tp: int, found: dict[str, list[Times]]) -> Row:
    mine, theirs = _medians(found[backend]), _medians(found["mp"])
    return {
        "backend": backend,
        "version": VERSIONS[backend],
        "tp": tp,
        "start_s": round(mine.start, 2),
        "start_vs_mp": round(mine.start / theirs.start, 3),
        "start_cpu_s": round(mine.start_cpu, 2),
        "stop_s": round(mine.stop, 2),
        "stop_vs_mp": round(mine.stop / theirs.stop, 3),
        "rounds_start_s": [round(each.start, 2) for each in found[backend]],
        "rounds_start_cpu_s": [round(each.start_cpu, 2) for each in found[backend]],
        "rounds_stop_s": [round(each.stop, 2) for each in found[backend]],
    }


def _medians(times: list[Times]) -> Times:
    return Times(*map(statistics.median, zip(*times, strict=True)))


def columns(results: Results) -> list[Column]:
    return [
        text("TP", "tp"),
        text("backend", "backend"),
        text("version", "version"),
        figure("start, s", "start_s", 2),
        figure("vs mp", "start_vs_mp", 3),
        figure("CPU s", "start_cpu_s", 2),
        figure("stop, s", "stop_s", 2),
        figure("vs mp", "stop_vs_mp", 3),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "vLLM with a tiny model: starting and stopping",
        f"medians of {results['rounds']} rounds",
        ("tp",),
    )


if __name__ == "__main__":
    sys.exit(main())
