"""The time to turn a step's request and its reply into bytes and back.

    python -m benchmarks.step_codec --batch 1,8,64,256,1024,4096 --json FILE

In one process, without a channel. As in vLLM, each step is made just before it is encoded, the reply is
what a model runner makes of it, and the reply's tokens are kept for some steps. `p50_us` is encoding
and decoding together. `tp` is 1: a request is encoded once for all ranks, and one rank decodes it.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from benchmarks.codecs import CODECS, Codec
from benchmarks.options import ToolParser, count, counts, names
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.rounds import in_turn
from benchmarks.scenarios import SCENARIOS, Tokens
from benchmarks.table import Column, faster, figure, print_table, text
from benchmarks.tool import run_tool

_WARM_UP = 20  # uncounted steps at the beginning of a round
_FEWEST = 30  # counted ones, at least
_REQUESTS = 60_000  # in all steps of a round, about
_VOCABULARY = 128_000
_DIRECTIONS = ("request", "reply")


@dataclass(frozen=True)
class Options:
    batch: list[int]
    scenario: list[str]
    steps: int
    rounds: int
    json: Path | None
    plot: Path | None


@dataclass
class Timings:
    """Of one codec, one direction and one round."""

    encode_ns: list[int] = field(default_factory=list)
    decode_ns: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, began: int, encoded: int, decoded: int, message: Any) -> None:
        self.encode_ns.append(encoded - began)
        self.decode_ns.append(decoded - encoded)
        parts = message if isinstance(message, list) else [message]
        self.sizes.append(sum(memoryview(part).nbytes for part in parts))

    def percentile_us(self, percent: int) -> float:
        both = sorted(map(sum, zip(self.encode_ns, self.decode_ns, strict=True)))
        return both[math.ceil(len(both) * percent / 100) - 1] / 1e3


class Runner:
    """A model runner: it returns a token for each request, in the order of its input batch.

    As in vLLM, a new request takes the first row that a finished one has left.
    """

    def __init__(self) -> None:
        self._order: list[str] = []
        self._index: dict[str, int] = {}
        self._random = random.Random(0)

    def run(self, step: SchedulerOutput) -> ModelRunnerOutput:
        free = sorted((self._index.pop(key) for key in step.finished_req_ids), reverse=True)
        for new in step.scheduled_new_reqs:
            row = free.pop() if free else len(self._order)
            self._order[row : row + 1] = [new.req_id]
            self._index[new.req_id] = row
        tokens = [[self._random.randrange(_VOCABULARY)] for _ in self._order]
        # Copies, as in vLLM, whose input batch changes later.
        return ModelRunnerOutput(list(self._order), self._index.copy(), tokens)


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("step_codec", "What it costs to encode and decode a step.")
    parser.add("--batch", counts, "1,8,64,256,1024,4096", "N,N", "how many requests a step has")
    parser.add(
        "--scenario",
        names(tuple(SCENARIOS), "scenario"),
        ",".join(SCENARIOS),
        "NAME,NAME",
        "of these",
    )
    parser.add(
        "--steps", count, "500", "N", "how many are timed in a round, fewer with many requests"
    )
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("step_codec", parse(arguments), run, show)


def run(options: Options) -> Results:
    results = new_results("step_codec", options.rounds, options.steps, {})
    cases = [(name, batch) for name in options.scenario for batch in options.batch]
    with Progress(len(cases) * options.rounds * len(CODECS)) as progress:
        for name, batch in cases:
            results["results"] += _measure(name, batch, options, progress)
            save(results, options.json)
    return results


def _measure(name: str, batch: int, options: Options, progress: Progress) -> list[Row]:
    """Measures one case: all codecs in turn, in each round another one first."""
    count = max(_FEWEST, min(options.steps, _REQUESTS // batch))
    rounds: dict[str, list[dict[str, Timings]]] = {codec.name: [] for codec in CODECS}
    for number in range(options.rounds):
        for codec in in_turn(CODECS, number):
            with progress.step(f"{name}, batch {batch}: round {number + 1}, {codec.name}"):
                rounds[codec.name].append(_time(codec(), name, batch, count))
    return [
        _row(codec, name, batch, direction, [timings[direction] for timings in rounds[codec.name]])
        for direction in _DIRECTIONS
        for codec in CODECS
    ]


def _time(codec: Codec, name: str, batch: int, count: int) -> dict[str, Timings]:
    """The garbage collector doesn't run, because it would walk through all of vLLM."""
    clock = time.perf_counter_ns
    scenario, runner, kept = SCENARIOS[name](batch), Runner(), Tokens()
    timings = {direction: Timings() for direction in _DIRECTIONS}
    gc.collect()
    gc.disable()
    try:
        for number in range(_WARM_UP + count):
            if number == _WARM_UP:
                timings = {direction: Timings() for direction in _DIRECTIONS}
            received = decoded = None  # freed here, not within the timed code
            step = scenario.next()
            began = clock()
            message = codec.encode_request(step)
            encoded = clock()
            received = codec.decode_request(message)
            timings["request"].add(began, encoded, clock(), message)
            output = runner.run(received)
            began = clock()
            message = codec.encode_reply(output)
            encoded = clock()
            decoded = codec.decode_reply(message)
            timings["reply"].add(began, encoded, clock(), message)
            kept.keep(decoded)
    finally:
        gc.enable()
    return timings


def _row(
    codec: type[Codec], name: str, batch: int, direction: str, rounds: Sequence[Timings]
) -> Row:
    def median_us(values: Any) -> float:
        return round(float(statistics.median(values)), 2)

    return {
        "backend": codec.name,
        "version": codec.version,
        "tp": 1,
        "batch": batch,
        "scenario": name,
        "direction": direction,
        "p50_us": median_us(each.percentile_us(50) for each in rounds),
        "p99_us": median_us(each.percentile_us(99) for each in rounds),
        "encode_us": median_us(statistics.median(each.encode_ns) / 1e3 for each in rounds),
        "decode_us": median_us(statistics.median(each.decode_ns) / 1e3 for each in rounds),
        "bytes": int(statistics.median(size for each in rounds for size in each.sizes)),
    }


def columns(results: Results) -> list[Column]:
    rows, case = results["results"], ("scenario", "batch", "direction")
    return [
        text("scenario", "scenario"),
        figure("batch", "batch", 0),
        text("direction", "direction"),
        text("backend", "backend"),
        text("version", "version"),
        figure("p50", "p50_us"),
        figure("p99", "p99_us"),
        figure("encode", "encode_us"),
        figure("decode", "decode_us"),
        figure("bytes", "bytes", 0),
        faster(rows, "p50_us", "pickle5", case, "pickle5 / this"),
        faster(rows, "bytes", "pickle5", case, "bytes"),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "A step's request and its reply, encoded and decoded, µs",
        f"medians of {results['rounds']} rounds; ratios of the p50 and of the bytes",
        ("scenario", "batch", "direction"),
    )


if __name__ == "__main__":
    sys.exit(main())
