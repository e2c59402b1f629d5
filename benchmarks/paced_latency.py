"""The round trip of messages that come every few milliseconds, and the CPU time of waiting for them.

    python -m benchmarks.paced_latency --interval-ms 1,5,20 --jitter 0.05 --ranks 1,2,4
    python -m benchmarks.paced_latency --idle-s 10 --ranks 2

The engine sleeps between messages and the ranks wait, as they do while a scheduler is busy. With
--gap ranks, the ranks sleep before they reply, as while a model computes, and the engine waits; a latency
is then from the end of a rank's sleep until the engine has its reply. CPU percentages are of one core and
of all threads of a process; the engine's is without its sleep.

--patterns: `steady`; `shift`, intervals ten times as long from the middle on; `bursts` of 20 after a
silence of 40 intervals; `random`, exponentially distributed; `alternating`, 0.1 and 1.9 intervals.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from benchmarks.options import Parser, count, names, number, numbers
from benchmarks.paced import (
    Idle,
    Paced,
    idle_figures,
    measure_idle,
    measure_paced,
    measure_working,
    paced_figures,
)
from benchmarks.pacing import PATTERNS, gaps
from benchmarks.peers import OBJECTS, PACED
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, load_peers, new_results, save
from benchmarks.rounds import Task, run_rounds, steps
from benchmarks.table import Column, figure, print_table, ratio, text
from benchmarks.tool import run_tool

_SAME = ("ranks", "pattern", "interval_ms")


@dataclass(frozen=True)
class Options:
    ranks: list[int]
    rounds: int
    transports: list[str]
    json: Path | None
    plot: Path | None
    interval_ms: list[float]
    jitter: float
    patterns: list[str]
    gap: Literal["engine", "ranks"]
    messages: int
    warm_up: int
    idle_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("paced_latency", _parse(arguments), run, show)


def run(options: Options) -> Results:
    """Rows of paced messages, or with --idle-s rows of silence."""
    settings = {
        "ranks": options.ranks,
        "gap": options.gap,
        "jitter": options.jitter,
        "idle_s": options.idle_s,
    }
    results = new_results("paced_latency", options.rounds, options.messages, settings)
    missing = results["missing"]
    cases = [(pattern, ms) for pattern in options.patterns for ms in options.interval_ms]
    n_tasks = 1 if options.idle_s else len(cases)
    n_peers = len(options.transports)
    n_steps = n_peers + len(options.ranks) * steps(n_peers, n_tasks, options.rounds)
    with Progress(n_steps) as progress:
        peers = load_peers(options.transports, missing, progress)
        for ranks in options.ranks:
            setup = Setup(ranks, timed=True)
            if options.idle_s:
                idle = [_idle_task(ranks, options)]
                for peer in peers:  # alone, because the threads of other peers would count
                    for one in run_rounds([peer], setup, idle, options.rounds, progress, missing):
                        row = _row(peer, ranks) | {"idle_s": options.idle_s}
                        _add(results, row, idle_figures(one.rounds), one.rounds)
            else:
                paced = [_paced_task(ranks, *case, options) for case in cases]
                for found in run_rounds(peers, setup, paced, options.rounds, progress, missing):
                    pattern, interval_ms = cases[found.task]
                    row = _row(found.peer, ranks) | {
                        "gap": options.gap,
                        "pattern": pattern,
                        "interval_ms": interval_ms,
                        "jitter": options.jitter,
                    }
                    _add(results, row, paced_figures(found.rounds), found.rounds)
            save(results, options.json)
    return results


def _row(peer: type[Peer], ranks: int) -> Row:
    return {"transport": peer.name, "version": peer.version, "ranks": ranks}


def _add(
    results: Results, row: Row, figures: Row, rounds: Sequence[Paced] | Sequence[Idle]
) -> None:
    results["results"].append(row | figures)
    results["per_round"].append(row | {"rounds": [asdict(one) for one in rounds]})


def _paced_task(ranks: int, pattern: str, interval_ms: float, options: Options) -> Task[Paced]:
    measure = measure_paced if options.gap == "engine" else measure_working
    n = options.warm_up + options.messages

    def task(peer: Peer, number: int) -> Paced:
        # The rounds differ in their sequences; all transports get the same one in a round.
        spaces = gaps(pattern, interval_ms / 1e3, options.jitter, n, number)
        return measure(peer, ranks, spaces, options.warm_up)

    return Task(f"{pattern}, {interval_ms:g} ms", task)


def _idle_task(ranks: int, options: Options) -> Task[Idle]:
    def task(peer: Peer, number: int) -> Idle:
        return measure_idle(peer, ranks, options.idle_s)

    return Task(f"idle for {options.idle_s:g} s", task, poll_s=max(0.5, options.idle_s / 2))


def columns(results: Results) -> list[Column]:
    start = [text("ranks", "ranks")]
    who = [text("transport", "transport"), text("version", "version")]
    cpu = [figure("engine CPU %", "engine_cpu_pct", 2), figure("rank CPU %", "rank_cpu_pct", 2)]
    if results["settings"]["idle_s"]:
        return [
            *start,
            *who,
            *cpu,
            figure("engine switches/s", "engine_switches_per_s"),
            figure("rank switches/s", "rank_switches_per_s"),
        ]
    return [
        *start,
        text("pattern", "pattern"),
        figure("ms", "interval_ms", 0),
        *who,
        figure("mean", "mean_us"),
        figure("p50", "p50_us"),
        figure("p90", "p90_us"),
        figure("p99", "p99_us"),
        *cpu,
        ratio(results["results"], "p50_us", "mpspmd", _SAME),
    ]


def show(results: Results) -> None:
    settings = results["settings"]
    if seconds := settings["idle_s"]:
        title = f"Waits of {seconds:g} s without a message"
        group: tuple[str, ...] = ("ranks",)
    else:
        title = f"Paced messages, µs, jitter {settings['jitter']:.0%}; {settings['gap']} pause"
        group = _SAME
    caption = f"medians of {results['rounds']} rounds; CPU of one core, the busiest rank's"
    print_table(results, columns(results), title, caption, group)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = Parser(
        "paced_latency",
        "Round trips of messages that are due every few milliseconds, and the CPU time of waiting.",
        ranks="1,2,4",
        rounds=5,
        transports=PACED,
        known=OBJECTS,
    )
    parser.add("--interval-ms", numbers(0.01, 10_000), "1,5,20", "MS,MS", "between messages")
    parser.add(
        "--jitter", number(0, 1), "0.05", "SHARE", "of an interval, uniform, longer or shorter"
    )
    parser.add("--patterns", names(tuple(PATTERNS), "pattern"), "steady", "NAME,NAME", "of gaps")
    parser.add_argument(
        "--gap",
        choices=("engine", "ranks"),
        default="engine",
        help="who sleeps from message to message (default: %(default)s)",
    )
    parser.add("--messages", count, "100", "N", "how many are timed in each round")
    parser.add("--warm-up", count, "20", "N", "how many come before them and don't count")
    parser.add("--idle-s", number(0, 3600), "0", "S", "measure silence of so many seconds instead")
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
