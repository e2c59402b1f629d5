"""The round trip of one message from an engine to its ranks and back, over several transports.

    python -m benchmarks.channel_latency --ranks 1,2,4 --size 64,64K --rounds 5 --json FILE

Closed loop: the next message is sent when all replies to the last one have come. A request is a
`bytes` of --size bytes, sent to every rank; a reply is None. Each transport encodes and decodes both as
it does any object, most by pickle; `mpspmd` packs plain values. Two transports don't: `mpspmd-raw`
sends the bytes as they are, and `c-pingpong` is two processes in C that only copy --size bytes, which
shows what the machine allows. With --reply rank0 the other ranks still get and decode the requests;
how far they may lag behind depends on the transport's buffers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.latency import Latency, measure, median
from benchmarks.options import Parser, count, number, sizes
from benchmarks.peers import LATENCY
from benchmarks.peers.peer import Peer, Repliers, Setup
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, load_peers, new_results, save
from benchmarks.rounds import Task, run_rounds, steps
from benchmarks.table import Column, figure, print_table, ratio, size, text
from benchmarks.tool import run_tool

_REPLIES = {"all": "every rank replies", "rank0": "rank 0 replies"}


@dataclass(frozen=True)
class Options:
    ranks: list[int]
    rounds: int
    transports: list[str]
    json: Path | None
    plot: Path | None
    size: list[int]  # bytes
    messages: int  # timed in each round, or fewer
    round_s: float  # if they take longer than this
    reply: Repliers


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("channel_latency", _parse(arguments), run, show)


def run(options: Options) -> Results:
    """Measures all transports that can be imported, for each number of ranks and each size."""
    results = new_results(
        "channel_latency",
        options.rounds,
        options.messages,
        {"ranks": options.ranks, "reply": options.reply},
    )
    missing = results["missing"]
    tasks = [_task(n_bytes, options) for n_bytes in options.size]
    n_peers = len(options.transports)
    n_steps = n_peers + len(options.ranks) * steps(n_peers, len(tasks), options.rounds)
    with Progress(n_steps) as progress:
        peers = load_peers(options.transports, missing, progress)
        for ranks in options.ranks:
            setup = Setup(ranks, options.reply)
            for found in run_rounds(peers, setup, tasks, options.rounds, progress, missing):
                key: Row = {
                    "transport": found.peer.name,
                    "version": found.peer.version,
                    "ranks": ranks,
                    "reply": options.reply,
                    "size_bytes": options.size[found.task],
                }
                results["results"].append(key | median(found.rounds))
                rounds = [asdict(latency) for latency in found.rounds]
                results["per_round"].append(key | {"rounds": rounds})
            save(results, options.json)
    return results


def _task(n_bytes: int, options: Options) -> Task[Latency]:
    request = os.urandom(n_bytes)

    def task(peer: Peer, number: int) -> Latency:
        return measure(peer, request, options.messages, options.round_s)

    return Task(f"{n_bytes:,} bytes", task)


def columns(results: Results) -> list[Column]:
    return [
        text("ranks", "ranks"),
        size("bytes", "size_bytes"),
        text("transport", "transport"),
        text("version", "version"),
        figure("mean", "mean_us"),
        figure("p50", "p50_us"),
        figure("p90", "p90_us"),
        figure("p99", "p99_us"),
        figure("p99.9", "p999_us"),
        ratio(results["results"], "mean_us", "mpspmd", ("ranks", "size_bytes")),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        f"Round trips, µs; {_REPLIES[results['settings']['reply']]}",
        f"medians of {results['rounds']} rounds of at most {results['messages_per_round']:,}; "
        "ratios of the mean",
        ("ranks", "size_bytes"),
    )


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = Parser(
        "channel_latency",
        "The round trip of one message, engine -> ranks -> engine, one at a time.",
        ranks="1,2,4",
        rounds=5,
        transports=LATENCY,
    )
    parser.add("--size", sizes, "64", "BYTES,BYTES", "payload of a request; 64K, 1M")
    parser.add("--messages", count, "5000", "N", "timed in each round, at most")
    parser.add("--round-s", number(0.001, 3600), "10", "S", "the longest that a round may take")
    parser.add_argument(
        "--reply",
        choices=("all", "rank0"),
        default="all",
        help="who replies; every rank gets each request (default: %(default)s)",
    )
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
