"""vLLM from end to end with a tiny model: `mp` beside `mp-spmd`.

    python -m benchmarks.vllm_e2e --tp 1,2 --concurrency 1,8,64,256 --json FILE

All requests come at once and generate the same number of tokens, greedily. Both backends are started
with the same settings; in each round both generate in turn, another one first each time, while the
processes of the other are stopped, until either has done so for `--round-s`: a machine's speed changes
from one second to the next. Tokens must be the same. In a row `vs_mp` is the share of mp's tokens/s, the
median of the rounds' own ratios, and `cpu_s` the CPU seconds of all processes for one generation.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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


@dataclass
class Round:
    """What one backend has generated in it: the same again and again."""

    generations: list[Generation] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.generations)

    def mean(self, attribute: str) -> float:
        """Of one generation."""
        return statistics.fmean(getattr(each, attribute) for each in self.generations)


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("vllm_e2e", "Tokens a second of vLLM with a tiny model.")
    parser.add("--tp", counts, "1,2", "N,N", "how many ranks")
    parser.add("--concurrency", counts, "1,8,64,256", "N,N", "how many requests at once")
    parser.add("--tokens", count, "128", "N", "how many each request generates")
    parser.add("--round-s", number(0, 3600), "3", "S", "how long either generates in a round")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("vllm_e2e", parse(arguments), run, show)


def run(options: Options) -> Results:
    settings = {"tp": options.tp, "tokens": options.tokens, "round_s": options.round_s}
    results = new_results("vllm_e2e", options.rounds, options.tokens, settings)
    cases = len(options.concurrency) * (1 + options.rounds)
    steps = len(options.tp) * (len(VERSIONS) + cases)
    with tiny_model() as model, Progress(steps) as progress:
        for tp in options.tp:
            with _started(model, tp, max(options.concurrency), progress) as engines:
                for requests in options.concurrency:
                    results["results"] += _measure(engines, tp, requests, options, progress)
                    save(results, options.json)
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
    rounds: list[dict[str, Round]] = []
    for turn in range(options.rounds + 1):
        with progress.step(f"TP {tp}, {requests} requests: round {turn}"):
            seconds = options.round_s if turn else 0
            rounds.append(_generate(engines, turn, requests, options.tokens, seconds))
    counted = {backend: [each[backend] for each in rounds[1:]] for backend in rounds[0]}
    return [_row(backend, tp, requests, counted, options.tokens) for backend in counted]


def _generate(
    engines: list[Engine], turn: int, requests: int, tokens: int, seconds: float
) -> dict[str, Round]:
    """One round."""
    found = {engine.backend: Round() for engine in engines}
    while True:
        for engine in in_turn(engines, turn):
            raise_if_interrupted()
            resume(engine.pids)
            found[engine.backend].generations.append(engine.generate(requests, tokens))
            pause(engine.pids)
        turn += 1
        if min(each.seconds for each in found.values()) >= seconds:
            return found


def _row(backend: str, tp: int, requests: int, rounds: dict[str, list[Round]], tokens: int) -> Row:
    mine, reference = rounds[backend], rounds["mp"]
    took = [each.mean("seconds") for each in mine]
    speeds = [requests * tokens / each for each in took]
    ratios = [theirs.seconds / one.seconds for one, theirs in zip(mine, reference, strict=True)]
    expected = reference[0].generations[0].tokens
    return {
        "backend": backend,
        "version": VERSIONS[backend],
        "tp": tp,
        "concurrency": requests,
        "tokens_per_s": round(statistics.median(speeds), 1),
        # The prompts' step has the first token.
        "ms_per_step": round(statistics.median(took) * 1e3 / tokens, 3),
        "cpu_s": round(statistics.median(each.mean("cpu_seconds") for each in mine), 2),
        "vs_mp": round(statistics.median(ratios), 3),
        "same_tokens": all(one.tokens == expected for each in mine for one in each.generations),
        "rounds_tokens_per_s": [round(speed, 1) for speed in speeds],
    }


def columns(results: Results) -> list[Column]:
    return [
        text("TP", "tp"),
        figure("requests", "concurrency", 0),
        text("backend", "backend"),
        text("version", "version"),
        figure("tokens/s", "tokens_per_s", 0),
        figure("ms/step", "ms_per_step", 2),
        figure("CPU s", "cpu_s", 2),
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
