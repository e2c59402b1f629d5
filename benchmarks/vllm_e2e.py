"""vLLM from end to end with a tiny model: `mp` beside `mp-spmd`.

    python -m benchmarks.vllm_e2e --tp 1,2 --concurrency 1,8,64,256 --json FILE

All requests come at once and generate the same number of tokens, greedily. Each round starts both
backends anew with the same settings, because the placement of memory makes some starts faster than others.
The backends generate in turn for --round-s each, another one first each time, while the other's processes
are stopped, because a machine's speed changes from one second to the next. Tokens must be the same.
`vs_mp` is the share of mp's tokens/s, the median of the rounds' own ratios; `cpu_s` is the CPU seconds of
all processes for one generation.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.errors import BenchmarkError
from benchmarks.options import ToolParser, count, counts, number
from benchmarks.pause import pause, resume
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import in_turn
from benchmarks.signals import raise_if_interrupted, uninterrupted
from benchmarks.table import Column, figure, print_table, text
from benchmarks.tool import run_tool
from benchmarks.vllm_engines import VERSIONS, Engine, Generation
from benchmarks.vllm_model import tiny_model


@dataclass(frozen=True)
class Options:
    tp: list[int]
    concurrency: list[int]
    tokens: int
    round_s: float
    rounds: int
    json: Path | None
    plot: Path | None


Share: TypeAlias = dict[str, list[Generation]]
"""What each backend has generated in a round, the same requests each time."""


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("vllm_e2e", "Tokens a second of vLLM with a tiny model.")
    parser.add("--tp", counts, "1,2", "N,N", "how many ranks")
    parser.add("--concurrency", counts, "1,8,64,256", "N,N", "how many requests at once")
    parser.add("--tokens", count, "128", "N", "how many each request generates")
    parser.add("--round-s", number(0, 3600), "3", "S", "how long each generates in a round")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("vllm_e2e", parse(arguments), run, show)


def run(options: Options) -> Results:
    settings = {"tp": options.tp, "tokens": options.tokens, "round_s": options.round_s}
    results = new_results("vllm_e2e", options.rounds, options.tokens, settings)
    steps = len(options.tp) * options.rounds * (len(VERSIONS) + len(options.concurrency))
    with tiny_model() as model, Progress(steps) as progress:
        for tp in options.tp:
            results["results"] += _measure(model, tp, options, progress)
            save(results, options.json)
    return results


def _measure(model: Path, tp: int, options: Options, progress: Progress) -> list[Row]:
    rounds: list[dict[int, Share]] = []
    for turn in range(options.rounds):
        what = f"TP {tp}, round {turn + 1}"
        shares: dict[int, Share] = {}
        with _started(model, tp, max(options.concurrency), turn, what, progress) as engines:
            for requests in options.concurrency:
                with progress.step(f"{what}: {requests} requests"):
                    # The first one warms up, and doesn't count.
                    _generate(engines, turn, requests, options.tokens, 0)
                    shares[requests] = _generate(
                        engines, turn, requests, options.tokens, options.round_s
                    )
        rounds.append(shares)
    return [
        _row(backend, tp, requests, [shares[requests] for shares in rounds], options.tokens)
        for requests in options.concurrency
        for backend in VERSIONS
    ]


@contextlib.contextmanager
def _started(
    model: Path, tp: int, batch: int, turn: int, what: str, progress: Progress
) -> Iterator[list[Engine]]:
    """An engine on each backend. Its processes are stopped while the other is measured."""
    engines: list[Engine] = []
    try:
        for backend in in_turn(list(VERSIONS), turn):
            raise_if_interrupted()
            with progress.step(f"{what}: starting {backend}"):
                engines.append(engine := Engine(backend))
                try:
                    engine.start(model, tp, batch)
                except Exception as error:
                    raise BenchmarkError(f"{backend} can't be started: {error}") from error
                pause(engine.pids)
        yield engines
    finally:
        with uninterrupted(), contextlib.ExitStack() as ends:
            for engine in engines:
                ends.callback(engine.close)
                ends.callback(resume, engine.pids)


def _generate(
    engines: list[Engine], turn: int, requests: int, tokens: int, seconds: float
) -> Share:
    """Lets the engines generate in turn, until each has done so for `seconds`."""
    share: Share = {engine.backend: [] for engine in engines}
    while True:
        for engine in in_turn(engines, turn):
            raise_if_interrupted()
            resume(engine.pids)
            share[engine.backend].append(engine.generate(requests, tokens))
            pause(engine.pids)
        turn += 1
        if min(_mean(each, "seconds") * len(each) for each in share.values()) >= seconds:
            return share


def _mean(generations: list[Generation], attribute: str) -> float:
    return statistics.fmean(getattr(each, attribute) for each in generations)


def _row(backend: str, tp: int, requests: int, rounds: list[Share], tokens: int) -> Row:
    seconds = [_mean(share[backend], "seconds") for share in rounds]
    theirs = [_mean(share["mp"], "seconds") for share in rounds]
    speeds = [requests * tokens / each for each in seconds]
    ratios = [their / mine for their, mine in zip(theirs, seconds, strict=True)]
    expected = rounds[0]["mp"][0].tokens
    return {
        "backend": backend,
        "version": VERSIONS[backend],
        "tp": tp,
        "concurrency": requests,
        "tokens_per_s": round(statistics.median(speeds), 1),
        # As many steps as tokens: the step with the prompts makes the first token.
        "ms_per_step": round(statistics.median(seconds) * 1e3 / tokens, 3),
        "cpu_s": round(statistics.median(_mean(s[backend], "cpu_seconds") for s in rounds), 2),
        "gpu_busy": _gpu_busy(each for share in rounds for each in share[backend]),
        "vs_mp": round(statistics.median(ratios), 3),
        "same_tokens": all(one.tokens == expected for s in rounds for one in s[backend]),
        "rounds_tokens_per_s": [round(speed, 1) for speed in speeds],
        "rounds_vs_mp": [round(ratio, 3) for ratio in ratios],
    }


def _gpu_busy(generations: Iterable[Generation]) -> float | None:
    found = [each.gpu_busy for each in generations if each.gpu_busy is not None]
    return round(statistics.fmean(found), 1) if found else None


def columns(results: Results) -> list[Column]:
    with_gpus = any(row.get("gpu_busy") is not None for row in results["results"])
    return [
        text("TP", "tp"),
        figure("requests", "concurrency", 0),
        text("backend", "backend"),
        text("version", "version"),
        figure("tokens/s", "tokens_per_s", 0),
        figure("ms/step", "ms_per_step", 2),
        figure("CPU s", "cpu_s", 2),
        *([figure("GPU busy %", "gpu_busy", 0)] if with_gpus else []),
        figure("vs mp", "vs_mp", 3),
        Column("same tokens", lambda row: "yes" if row["same_tokens"] else "NO"),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        f"vLLM with a tiny model, {results['settings']['tokens']} tokens a request",
        f"medians of {results['rounds']} rounds",
        ("tp", "concurrency"),
    )


if __name__ == "__main__":
    sys.exit(main())
