"""What the recorder costs: the same with it and without it, in turn.

    python -m benchmarks.recorder_cost --rounds 9 --json FILE

Two measurements: the mean round trip of 64 bytes through an `Engine` with one rank, and the median step of
vLLM's executor with workers that return at once (see step_overhead), with 1 and 64 requests. In each round
another side goes first. Figures are medians over the rounds; so is the ratio, of one round's two figures.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import step_overhead
from benchmarks.errors import BenchmarkError
from benchmarks.executors import MpSpmd
from benchmarks.latency import Latency, measure
from benchmarks.options import ToolParser, count, counts
from benchmarks.peers.mpspmd_engine import MpspmdEngine
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import Task, run_rounds, steps
from benchmarks.table import Column, figure, print_table, text
from benchmarks.tool import run_tool

_VARIABLE = "MPSPMD_RECORD_STEPS"
_ROUND_S = 10.0


class UnrecordedEngine(MpspmdEngine):
    """An engine without a recorder."""

    name = "unrecorded"
    settings: ClassVar[dict[str, Any]] = {"record_steps": 0}


class UnrecordedSteps(MpSpmd):
    """vLLM's executor on an engine without a recorder."""

    name = "unrecorded"

    def start(self) -> None:
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "0"
        try:
            super().start()
        finally:
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before


@dataclass(frozen=True)
class Options:
    messages: int
    steps: int
    tp: list[int]
    rounds: int
    json: Path | None
    plot: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("recorder_cost", parse(arguments), run, show)


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("recorder_cost", "What the recorder costs.", rounds=9)
    parser.add("--messages", count, "20000", "N", "round trips in a round")
    parser.add("--steps", count, "2000", "N", "steps of vLLM's executor in a round")
    parser.add("--tp", counts, "1,2", "N,N", "how many ranks the executor has")
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> Results:
    results = new_results("recorder_cost", options.rounds, options.messages, {"tp": options.tp})
    results["results"].append(_round_trips(options, results))
    save(results, options.json)
    overhead = step_overhead.Options(
        options.tp, [1, 64], ["steady"], options.steps, options.rounds, None, None
    )
    rows = step_overhead.run(overhead, (MpSpmd, UnrecordedSteps))["results"]
    for on, off in zip(rows[::2], rows[1::2], strict=True):
        what = f"step, TP {on['tp']}, batch {on['batch']}"
        results["results"].append(_row(what, on["rounds_p50_us"], off["rounds_p50_us"]))
    return results


def _round_trips(options: Options, results: Results) -> Row:
    request = os.urandom(64)

    def task(peer: Peer, number: int) -> Latency:
        return measure(peer, request, options.messages, _ROUND_S)

    with Progress(steps(2, 1, options.rounds)) as progress:
        found = run_rounds(
            (MpspmdEngine, UnrecordedEngine),
            Setup(1),
            [Task("64 bytes", task)],
            options.rounds,
            progress,
            results["missing"],
        )
    if results["missing"]:
        raise BenchmarkError(results["missing"][0]["why"])
    on, off = ([one.mean_us for one in finding.rounds] for finding in found)
    return _row("round trip through Engine, n = 1", on, off)


def _row(what: str, on_us: Sequence[float], off_us: Sequence[float]) -> Row:
    on, off = statistics.median(on_us), statistics.median(off_us)
    return {
        "what": what,
        "on_us": round(on, 3),
        "off_us": round(off, 3),
        "more_ns": round(1000 * (on - off), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(on_us, off_us, strict=True)), 4),
        "rounds_on_us": [round(each, 3) for each in on_us],
        "rounds_off_us": [round(each, 3) for each in off_us],
    }


def show(results: Results) -> None:
    columns: list[Column] = [
        text("what", "what"),
        figure("with, µs", "on_us", 2),
        figure("without, µs", "off_us", 2),
        figure("more, ns", "more_ns", 0),
        figure("ratio", "ratio", 4),
    ]
    caption = f"medians of {results['rounds']} rounds"
    print_table(results, columns, "What the recorder costs", caption, ("what",))


if __name__ == "__main__":
    sys.exit(main())
