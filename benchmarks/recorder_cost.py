"""What the recorder costs: an engine with its recorder on, and the same engine with it paused, in turn.

    python -m benchmarks.recorder_cost --json FILE

Two measurements: a round trip of 64 bytes through an `Engine` with one rank, and a step of vLLM's executor
with workers that return at once (see step_overhead), with 1 and 64 requests.

Both sides of a round run on the same processes. While the recorder is paused, a process only tests a flag
where it would note something. Two engines that are started alike differ by up to 4 % for as long as they
run, which is several times what the recorder costs. CPU time wouldn't tell more: engine and ranks poll
while they wait, so it grows with every wait. A round is a few milliseconds long, so that the machine mostly
does the same in both of its halves, and every other round begins with the other side. The figures are
medians over the rounds; so are the difference and the ratio, which are of the two halves of one round. The
error is the standard error of the difference.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.executors import MpSpmd
from benchmarks.latency import no_garbage_collection
from benchmarks.options import ToolParser, count, counts
from benchmarks.peers.mpspmd_engine import MpspmdEngine
from benchmarks.peers.peer import Setup
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import in_turn
from benchmarks.scenarios import Tokens, steady
from benchmarks.signals import deaths_raise, raise_if_interrupted, uninterrupted
from benchmarks.step_overhead import running, started
from benchmarks.table import Column, figure, print_table, text
from benchmarks.tool import run_tool
from benchmarks.vllm_model import tiny_model
from mpspmd import Engine

_BATCHES = (1, 64)
_WARM_UP = 10  # uncounted steps after each switch


@dataclass(frozen=True)
class Options:
    steps: int
    tp: list[int]
    rounds: int
    json: Path | None
    plot: Path | None


@dataclass(frozen=True)
class Case:
    what: str
    engine: Engine
    step: Callable[[Any], Any]  # what is timed
    arguments: Iterator[Any]  # one for each step
    keep: Callable[[Any], None]  # gets what each step returns


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("recorder_cost", parse(arguments), run, show)


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("recorder_cost", "What the recorder costs.", rounds=500)
    parser.add("--steps", count, "64", "N", "round trips, or steps, in each half of a round")
    parser.add("--tp", counts, "1,2", "N,N", "how many ranks vLLM's executor has")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.rounds < 2:
        parser.error("--rounds 1: must be 2 or more, because the error needs several")
    return options


def run(options: Options) -> Results:
    results = new_results("recorder_cost", options.rounds, options.steps, {"tp": options.tp})
    cases = 1 + len(options.tp) * len(_BATCHES)
    with Progress(cases * options.rounds + len(options.tp)) as progress, tiny_model() as model:
        for row in _rows(options, progress, model):
            results["results"].append(row)
            save(results, options.json)
    return results


def _rows(options: Options, progress: Progress, model: Path) -> Iterator[Row]:
    yield _round_trips(options, progress)
    for tp in options.tp:
        yield from _vllm_steps(options, progress, model, tp)


def _round_trips(options: Options, progress: Progress) -> Row:
    request = os.urandom(64)
    peer = MpspmdEngine(Setup(1))
    try:
        peer.start()
        case = Case(
            "round trip through Engine, n = 1",
            peer.engine,
            peer.round_trip,
            repeat(request),
            lambda answer: None,
        )
        with deaths_raise(peer.pids, peer.name):
            return _compare(case, options, progress)
    finally:
        with uninterrupted():
            peer.close()


def _vllm_steps(options: Options, progress: Progress, model: Path, tp: int) -> Iterator[Row]:
    with started([MpSpmd], model, tp, progress) as (backend,):
        for batch in _BATCHES:
            scenario = steady(batch)
            with running(backend):
                case = Case(
                    f"step, TP {tp}, batch {batch}",
                    backend.engine,
                    backend.step,
                    iter(scenario.next, None),  # without an end
                    Tokens().keep,
                )
                yield _compare(case, options, progress)
                backend.step(scenario.end())


def _compare(case: Case, options: Options, progress: Progress) -> Row:
    taken: dict[bool, list[float]] = {True: [], False: []}
    with no_garbage_collection():
        for number in range(options.rounds):
            raise_if_interrupted()
            with progress.step(f"{case.what}: round {number + 1} of {options.rounds}"):
                for on in in_turn((True, False), number):
                    arguments = list(islice(case.arguments, _WARM_UP + options.steps))
                    _switch(case.engine, on)
                    taken[on].append(_median_us(case, arguments))
    return _row(case.what, taken[True], taken[False])


def _switch(engine: Engine, on: bool) -> None:
    """Turns the recorder on or off, in the engine's process and in all ranks."""
    track = engine._channel.track
    if track is None:
        raise BenchmarkError("this engine has no recorder: unset MPSPMD_RECORD_STEPS")
    track.pause(not on)
    engine.collective_rpc(lambda worker: worker.ctx._track.pause(not on))


def _median_us(case: Case, arguments: Sequence[Any]) -> float:
    clock, step, nanoseconds = time.perf_counter_ns, case.step, []
    for argument in arguments:
        output = None  # freed here, not within the timed code
        began = clock()
        output = step(argument)
        nanoseconds.append(clock() - began)
        case.keep(output)
    return statistics.median(nanoseconds[_WARM_UP:]) / 1e3


def _row(what: str, on_us: Sequence[float], off_us: Sequence[float]) -> Row:
    pairs = list(zip(on_us, off_us, strict=True))
    more_ns = [1000 * (on - off) for on, off in pairs]
    return {
        "what": what,
        "on_us": round(statistics.median(on_us), 3),
        "off_us": round(statistics.median(off_us), 3),
        "more_ns": round(statistics.median(more_ns), 1),
        "error_ns": round(_error_of_median(more_ns), 1),
        "ratio": round(statistics.median(on / off for on, off in pairs), 4),
        "rounds_on_us": [round(each, 3) for each in on_us],
        "rounds_off_us": [round(each, 3) for each in off_us],
    }


def _error_of_median(figures: Sequence[float]) -> float:
    """Its standard error, from the quartiles: a round in which the machine did something else counts
    little."""
    low, _, high = statistics.quantiles(figures, n=4)
    return 1.25 * (high - low) / 1.35 / math.sqrt(len(figures))


def show(results: Results) -> None:
    columns: list[Column] = [
        text("what", "what"),
        figure("with, µs", "on_us", 2),
        figure("without, µs", "off_us", 2),
        figure("more, ns", "more_ns", 0),
        figure("± ns", "error_ns", 0),
        figure("ratio", "ratio", 4),
    ]
    caption = f"medians of {results['rounds']} rounds"
    print_table(results, columns, "What the recorder costs", caption, ("what",))


if __name__ == "__main__":
    sys.exit(main())
