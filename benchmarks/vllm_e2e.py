"""vLLM from end to end with a tiny model: `mp` beside `mp-spmd`.

    python -m benchmarks.vllm_e2e --tp 1,2 --concurrency 1,8,64,256 --json FILE

All requests come at once and generate the same number of tokens, greedily. Both backends are started
with the same settings; in each round both generate, another one first each time, while the processes of
the other are stopped. Tokens must be the same.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkError
from benchmarks.machine import Machine, this_machine
from benchmarks.options import ToolParser, count, counts
from benchmarks.pause import pause, resume
from benchmarks.progress import Progress
from benchmarks.signals import raise_if_interrupted, uninterrupted
from benchmarks.tool import attempt
from benchmarks.vllm_engines import VERSIONS, Engine, Generation
from benchmarks.vllm_model import tiny_model


class Row(TypedDict):
    """Medians over the rounds."""

    backend: str
    version: str
    tp: int
    concurrency: int
    tokens_per_s: float
    ms_per_step: float
    cpu_s: float  # of all processes, for one round
    vs_mp: float  # tokens/s as a share of mp's: the median of the rounds' own ratios
    same_tokens: bool  # as mp's
    rounds_tokens_per_s: list[float]


class Results(TypedDict):
    benchmark: str
    machine: Machine
    rounds: int
    tokens: int
    results: list[Row]


@dataclass(frozen=True)
class Options:
    tp: list[int]
    concurrency: list[int]
    tokens: int
    rounds: int
    json: Path | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("vllm_e2e", "Tokens a second of vLLM with a tiny model.")
    parser.add("--tp", counts, "1,2", "N,N", "how many ranks")
    parser.add("--concurrency", counts, "1,8,64,256", "N,N", "how many requests at once")
    parser.add("--tokens", count, "128", "N", "how many each request generates")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    """The exit code: 0; 1 a backend failed; 2 a bad option; 128 + signal when interrupted."""
    options = parse()
    results = attempt("vllm_e2e", options, run)
    if isinstance(results, int):
        return results
    print_table(results)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def run(options: Options) -> Results:
    results: Results = {
        "benchmark": "vllm_e2e",
        "machine": this_machine(),
        "rounds": options.rounds,
        "tokens": options.tokens,
        "results": [],
    }
    cases = len(options.concurrency) * (1 + options.rounds)
    with tiny_model() as model, Progress(len(options.tp) * len(VERSIONS) * (1 + cases)) as progress:
        for tp in options.tp:
            with _started(model, tp, max(options.concurrency), progress) as engines:
                for requests in options.concurrency:
                    results["results"] += _measure(engines, tp, requests, options, progress)
    return results


@contextlib.contextmanager
def _started(model: Path, tp: int, batch: int, progress: Progress) -> Iterator[list[Engine]]:
    """An engine on each backend; their processes are stopped unless they are measured."""
    engines: list[Engine] = []
    try:
        for backend in VERSIONS:
            raise_if_interrupted()
            with progress.step(f"TP {tp}: starting {backend}"):
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


def _measure(
    engines: list[Engine], tp: int, requests: int, options: Options, progress: Progress
) -> list[Row]:
    """The first round warms up, and isn't counted."""
    rounds: dict[str, list[Generation]] = {engine.backend: [] for engine in engines}
    for number in range(options.rounds + 1):
        first = number % len(engines)
        for engine in engines[first:] + engines[:first]:
            raise_if_interrupted()
            with progress.step(f"TP {tp}, {requests} requests: round {number}, {engine.backend}"):
                resume(engine.pids)
                generation = engine.generate(requests, options.tokens)
                pause(engine.pids)
            if number:
                rounds[engine.backend].append(generation)
    return [_row(backend, tp, requests, rounds, options.tokens) for backend in rounds]


def _row(
    backend: str, tp: int, requests: int, rounds: dict[str, list[Generation]], tokens: int
) -> Row:
    mine, reference = rounds[backend], rounds["mp"]
    speeds = [requests * tokens / one.seconds for one in mine]
    ratios = [theirs.seconds / one.seconds for one, theirs in zip(mine, reference, strict=True)]
    return {
        "backend": backend,
        "version": VERSIONS[backend],
        "tp": tp,
        "concurrency": requests,
        "tokens_per_s": round(statistics.median(speeds), 1),
        # The prompts' step has the first token.
        "ms_per_step": round(statistics.median(one.seconds for one in mine) * 1e3 / tokens, 3),
        "cpu_s": round(statistics.median(one.cpu_seconds for one in mine), 2),
        "vs_mp": round(statistics.median(ratios), 3),
        "same_tokens": all(one.tokens == reference[0].tokens for one in mine),
        "rounds_tokens_per_s": [round(speed, 1) for speed in speeds],
    }


def print_table(results: Results) -> None:
    """On stdout."""
    table = Table(
        title=f"vLLM with a tiny model, {results['tokens']} tokens a request",
        caption=f"medians of {results['rounds']} rounds",
    )
    for heading in ("TP", "requests", "backend", "version"):
        table.add_column(heading)
    for heading in ("tokens/s", "ms/step", "CPU s", "vs mp", "same tokens"):
        table.add_column(heading, justify="right")
    for row in results["results"]:
        table.add_row(
            str(row["tp"]),
            str(row["concurrency"]),
            row["backend"],
            row["version"],
            f"{row['tokens_per_s']:,.0f}",
            f"{row['ms_per_step']:.2f}",
            f"{row['cpu_s']:.2f}",
            f"{row['vs_mp']:.3f}",
            "yes" if row["same_tokens"] else "NO",
        )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
