"""What mpspmd-metrics costs the engine that it watches: CPU time of the engine and its ranks, in turn.

    python -m benchmarks.watcher_cost --rounds 30 --json FILE

Each step is a fixed amount of work on both ranks, about a millisecond. All waits sleep at once
(MPSPMD_WAIT=park), because the CPU time of a wait that polls depends on how long it is. The watcher runs in
every other half of a round, and is stopped by SIGSTOP in the others. It isn't scraped: an answer costs its
own process only.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpspmd
from benchmarks.cpu import Usage
from benchmarks.errors import BenchmarkError
from benchmarks.options import ToolParser, count, number
from benchmarks.parent import die_with_parent
from benchmarks.pause import pause, resume
from benchmarks.progress import Progress
from benchmarks.results import Results, new_results
from benchmarks.rounds import in_turn
from benchmarks.table import Column, figure, print_table, text
from benchmarks.tool import run_tool

_RANKS = 2
_LOOPS = 30_000
_WARM_UP = 200


class Looping(mpspmd.Worker):
    """Works the same amount in each step."""

    def __init__(self, ctx: mpspmd.RankContext) -> None:
        die_with_parent()
        super().__init__(ctx)

    def execute_model(self, loops: int) -> int:
        total = 0
        for each in range(loops):
            total += each
        return total


@dataclass(frozen=True)
class Options:
    steps: int
    interval: float
    rounds: int
    json: Path | None
    plot: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("watcher_cost", parse(arguments), run, show)


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("watcher_cost", "What mpspmd-metrics costs the engine.", rounds=30)
    parser.add("--steps", count, "2000", "N", "in each half of a round")
    parser.add("--interval", number(0.1, 60), "1", "S", "between two readings of the watcher")
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> Results:
    results = new_results("watcher_cost", options.rounds, options.steps, {"ranks": _RANKS})
    used: dict[bool, list[float]] = {True: [], False: []}
    config = mpspmd.RuntimeConfig.from_env(wait="park")
    with (
        mpspmd.Engine(Looping, world_size=_RANKS, config=config) as engine,
        _watcher(options.interval) as watcher,
        Progress(2 * options.rounds) as progress,
    ):
        pids = [os.getpid(), *engine.pids]
        for round_number in range(options.rounds):
            for watched in in_turn((True, False), round_number):
                (resume if watched else pause)([watcher])
                what = "watched" if watched else "not watched"
                with progress.step(f"round {round_number + 1} of {options.rounds}, {what}"):
                    used[watched].append(_cpu_us_a_step(engine, pids, options.steps))
        resume([watcher])
    pairs = zip(used[True], used[False], strict=True)
    results["results"].append(
        {
            "what": f"{_RANKS} ranks, read every {options.interval:g} s",
            "watched_us": round(statistics.median(used[True]), 2),
            "alone_us": round(statistics.median(used[False]), 2),
            "more_pct": round(100 * statistics.median(a / b - 1 for a, b in pairs), 3),
            "rounds_watched_us": [round(each, 2) for each in used[True]],
            "rounds_alone_us": [round(each, 2) for each in used[False]],
        }
    )
    return results


def _cpu_us_a_step(engine: mpspmd.Engine, pids: Sequence[int], steps: int) -> float:
    """Of engine and ranks together."""
    for _ in range(_WARM_UP):
        engine.execute_model(_LOOPS)
    before = sum(Usage.of(pid).cpu_ns for pid in pids)
    for _ in range(steps):
        engine.execute_model(_LOOPS)
    # Rank 1 replies to no step, and may lag behind: this call waits for it.
    engine.collective_rpc("execute_model", args=(0,))
    return (sum(Usage.of(pid).cpu_ns for pid in pids) - before) / 1e3 / steps


@contextlib.contextmanager
def _watcher(interval_s: float) -> Iterator[int]:
    """mpspmd-metrics, watching this process; its process id."""
    command = [sys.executable, "-m", "mpspmd", "metrics", str(os.getpid()), "--port", "0"]
    with subprocess.Popen(
        [*command, "--interval", str(interval_s)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise BenchmarkError("mpspmd-metrics doesn't start")
            yield process.pid
        finally:
            process.kill()  # it may be stopped: then SIGTERM would have no effect


def show(results: Results) -> None:
    columns: list[Column] = [
        text("what", "what"),
        figure("watched, µs", "watched_us", 1),
        figure("not watched, µs", "alone_us", 1),
        figure("more, %", "more_pct", 2),
    ]
    caption = f"medians of {results['rounds']} rounds of {results['messages_per_round']:,} steps"
    print_table(results, columns, "CPU time of a step, engine and ranks", caption, ("what",))


if __name__ == "__main__":
    sys.exit(main())
