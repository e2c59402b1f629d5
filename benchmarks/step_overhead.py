"""What an executor adds to a step: vLLM's own `mp` beside `mp-spmd`, with workers that return at once.

    python -m benchmarks.step_overhead --tp 1,2,4 --batch 1,64,256,1024 --json FILE

The real executors are driven as EngineCore.step drives them, one step after the other. A step's time is
from the call of `execute_model` until its output is there, without freeing the output before. The
scheduler's outputs are made beforehand, and differ from step to step as they do in decoding.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput

from benchmarks.errors import BenchmarkError
from benchmarks.executors import BACKENDS, Backend
from benchmarks.options import ToolParser, count, counts, names
from benchmarks.pause import pause, resume
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import in_turn
from benchmarks.scenarios import SCENARIOS, Scenario, Tokens
from benchmarks.signals import (
    deaths_raise,
    raise_if_interrupted,
    uninterrupted,
)
from benchmarks.table import Column, faster, figure, print_table, text
from benchmarks.tool import run_tool
from benchmarks.vllm_model import tiny_model

_WARM_UP = 20  # uncounted steps at the beginning of a round
_BYTE_STEPS = 32  # steps whose messages are measured
_MEMORY_STEPS = 200_000  # requests in all steps that are made beforehand for a round


@dataclass(frozen=True)
class Options:
    tp: list[int]
    batch: list[int]
    scenario: list[str]
    steps: int
    rounds: int
    json: Path | None
    plot: Path | None


@dataclass(frozen=True)
class Round:
    p50_us: float
    p99_us: float


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("step_overhead", "What an executor adds to a step.")
    parser.add("--tp", counts, "1,2,4", "N,N", "how many ranks")
    parser.add("--batch", counts, "1,64,256,1024", "N,N", "how many requests a step has")
    parser.add(
        "--scenario",
        names(tuple(SCENARIOS), "scenario"),
        "steady",
        "NAME,NAME",
        f"of {', '.join(SCENARIOS)}",
    )
    parser.add(
        "--steps", count, "1000", "N", "how many are timed in a round, fewer with many requests"
    )
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("step_overhead", parse(arguments), run, show)


def run(options: Options) -> Results:
    results = new_results("step_overhead", options.rounds, options.steps, {"tp": options.tp})
    cases = [(batch, name) for name in options.scenario for batch in options.batch]
    steps = len(options.tp) * len(BACKENDS) * (1 + len(cases) * (options.rounds + 1))
    with tiny_model() as model, Progress(steps) as progress:
        for tp in options.tp:
            with started(BACKENDS, model, tp, progress) as backends:
                for batch, name in cases:
                    results["results"] += _measure(backends, tp, batch, name, options, progress)
                    save(results, options.json)
    return results


@contextlib.contextmanager
def started(classes: Sequence[type[Backend]], model: Path, tp: int, progress: Progress) -> Any:
    """The backends. Their ranks are stopped while others are measured."""
    backends: list[Backend] = []
    try:
        for backend_class in classes:
            raise_if_interrupted()
            with progress.step(f"TP {tp}: starting {backend_class.name}"):
                backends.append(backend := backend_class(model, tp))
                with _failures_named(backend):
                    backend.start()
                pause(backend.pids)
        yield backends
    finally:
        with uninterrupted(), contextlib.ExitStack() as ends:
            for backend in backends:
                ends.callback(backend.close)
                ends.callback(resume, backend.pids)


def _measure(
    backends: Sequence[Backend],
    tp: int,
    batch: int,
    name: str,
    options: Options,
    progress: Progress,
) -> list[Row]:
    """Measures one case: all backends in turn, in each round another one first."""
    what = f"TP {tp}, {name}, batch {batch}"
    scenarios = {backend.name: SCENARIOS[name](batch) for backend in backends}
    rounds: dict[str, list[Round]] = {backend.name: [] for backend in backends}
    sizes: dict[str, int] = {}
    count = min(options.steps, max(_WARM_UP, _MEMORY_STEPS // batch))
    for number in range(options.rounds):
        for backend in in_turn(backends, number):
            raise_if_interrupted()
            steps = _steps(scenarios[backend.name], count + _WARM_UP)
            with progress.step(f"{what}: round {number + 1}, {backend.name}"), running(backend):
                rounds[backend.name].append(_time(backend, steps))
    for backend in backends:
        scenario = scenarios[backend.name]
        with progress.step(f"{what}: sizes, {backend.name}"), running(backend):
            sizes[backend.name] = backend.bytes_a_step(_steps(scenario, _BYTE_STEPS))
            backend.step(scenario.end())
    return [
        {
            "backend": backend.name,
            "version": backend.version,
            "tp": tp,
            "batch": batch,
            "scenario": name,
            "p50_us": round(statistics.median(one.p50_us for one in rounds[backend.name]), 2),
            "p99_us": round(statistics.median(one.p99_us for one in rounds[backend.name]), 2),
            "bytes": sizes[backend.name],
            "rounds_p50_us": [round(one.p50_us, 2) for one in rounds[backend.name]],
        }
        for backend in backends
    ]


def _steps(scenario: Scenario, count: int) -> list[SchedulerOutput]:
    return [scenario.next() for _ in range(count)]


def _time(backend: Backend, steps: list[SchedulerOutput]) -> Round:
    """The garbage collector doesn't run, because it would walk through the other backend's modules."""
    clock = time.perf_counter_ns
    step, kept = backend.step, Tokens()
    for scheduler_output in steps[:_WARM_UP]:
        kept.keep(step(scheduler_output))
    nanoseconds = []
    gc.collect()
    gc.disable()
    try:
        for scheduler_output in steps[_WARM_UP:]:
            output = None  # freed here, not within the timed code
            began = clock()
            output = step(scheduler_output)
            nanoseconds.append(clock() - began)
            kept.keep(output)
    finally:
        gc.enable()
    nanoseconds.sort()
    p99 = nanoseconds[math.ceil(len(nanoseconds) * 0.99) - 1]
    return Round(statistics.median_low(nanoseconds) / 1e3, p99 / 1e3)


@contextlib.contextmanager
def running(backend: Backend) -> Any:
    """Within, the backend's ranks run, and the death of one raises BenchmarkError."""
    resume(backend.pids)
    with _failures_named(backend), deaths_raise(backend.pids, backend.name):
        yield
    pause(backend.pids)


@contextlib.contextmanager
def _failures_named(backend: Backend) -> Any:
    try:
        yield
    except BenchmarkError:
        raise
    except Exception as error:
        reason = "; ".join(str(error).splitlines()[:1])
        raise BenchmarkError(f"{backend.name} failed: {type(error).__name__}: {reason}") from error


def columns(results: Results) -> list[Column]:
    rows, case = results["results"], ("tp", "scenario", "batch")
    return [
        text("TP", "tp"),
        text("scenario", "scenario"),
        figure("batch", "batch", 0),
        text("backend", "backend"),
        text("version", "version"),
        figure("p50", "p50_us"),
        figure("p99", "p99_us"),
        figure("bytes", "bytes", 0),
        faster(rows, "p50_us", "mp", case, "mp / this"),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "A step with workers that return at once, µs",
        f"medians of {results['rounds']} rounds; ratios of the p50; bytes of a step's messages to one "
        "rank and from it",
        ("tp", "scenario", "batch"),
    )


if __name__ == "__main__":
    sys.exit(main())
