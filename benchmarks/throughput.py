"""How many small messages a second, and how many bytes of large ones, reach every rank.

    python -m benchmarks.throughput --size 64,64M --ranks 1,4

Below 1 MiB a message is a `bytes`; the engine sends --window of them in a row, and every rank replies to
the last one only. From 1 MiB on it is a CPU tensor, and every rank replies to each. Each rank decodes each
message into its own memory. GB/s (10^9 bytes a second) count what one rank gets.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.latency import no_garbage_collection
from benchmarks.options import Parser, count, number, sizes
from benchmarks.peers import LATENCY, OBJECTS
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.results import Results, load_peers, new_results, save
from benchmarks.rounds import Task, run_rounds, steps
from benchmarks.table import Column, figure, print_table, ratio, size, text
from benchmarks.tool import run_tool

_TENSOR_BYTES = 1 << 20


@dataclass(frozen=True)
class Options:
    ranks: list[int]
    rounds: int
    transports: list[str]
    json: Path | None
    plot: Path | None
    size: list[int]
    window: int
    messages: int
    round_s: float


@dataclass(frozen=True)
class Rate:
    messages_per_s: float
    messages: int


def main(arguments: Sequence[str] | None = None) -> int:
    return run_tool("throughput", _parse(arguments), run, show)


def run(options: Options) -> Results:
    settings = {"ranks": options.ranks, "window": options.window}
    results = new_results("throughput", options.rounds, options.messages, settings)
    missing = results["missing"]
    tasks = [_task(n_bytes, options) for n_bytes in options.size]
    n_peers = len(options.transports)
    n_steps = n_peers + len(options.ranks) * steps(n_peers, len(tasks), options.rounds)
    with Progress(n_steps) as progress:
        peers = load_peers(options.transports, missing, progress)
        for ranks in options.ranks:
            setup = Setup(ranks, every=options.window)
            for found in run_rounds(peers, setup, tasks, options.rounds, progress, missing):
                n_bytes = options.size[found.task]
                key = {
                    "transport": found.peer.name,
                    "version": found.peer.version,
                    "ranks": ranks,
                    "size_bytes": n_bytes,
                    "kind": _kind(n_bytes),
                    "window": _window(n_bytes, options),
                }
                results["results"].append(key | _figures(n_bytes, found.rounds))
                rounds = [asdict(rate) for rate in found.rounds]
                results["per_round"].append(key | {"rounds": rounds})
            save(results, options.json)
    return results


def _task(n_bytes: int, options: Options) -> Task[Rate]:
    window = _window(n_bytes, options)

    def task(peer: Peer, number: int) -> Rate:
        request = _request(n_bytes)
        # Doesn't count: the ranks have just been continued, and buffers and caches are cold.
        _send_window(peer, request, window)
        with no_garbage_collection():
            began = now = time.perf_counter()
            sent = 0
            while sent < options.messages and now - began < options.round_s:
                _send_window(peer, request, window)
                sent += window
                now = time.perf_counter()
        return Rate(sent / (now - began), sent)

    return Task(f"{n_bytes:,} bytes", task)


def _send_window(peer: Peer, request: object, window: int) -> None:
    """Sends `window` messages in a row, and takes the ranks' replies to the last one."""
    send = peer.send
    for _ in range(window):
        send(request)
    peer.receive()


def _window(n_bytes: int, options: Options) -> int:
    return options.window if _kind(n_bytes) == "bytes" else 1


def _kind(n_bytes: int) -> str:
    return "bytes" if n_bytes < _TENSOR_BYTES else "tensor"


def _request(n_bytes: int) -> object:
    if _kind(n_bytes) == "bytes":
        return os.urandom(n_bytes)
    import torch  # here, because it takes seconds and runs without tensors don't need it

    return torch.randint(256, (n_bytes,), dtype=torch.uint8)


def _figures(n_bytes: int, rounds: Sequence[Rate]) -> dict[str, float]:
    rate = statistics.median(one.messages_per_s for one in rounds)
    return {
        "messages_per_s": round(rate, 3),
        "gb_per_s": round(rate * n_bytes / 1e9, 4),
        "messages": sum(one.messages for one in rounds),
    }


def columns(results: Results) -> list[Column]:
    return [
        text("ranks", "ranks"),
        size("size", "size_bytes"),
        text("kind", "kind"),
        text("transport", "transport"),
        text("version", "version"),
        figure("messages/s", "messages_per_s", 0),
        figure("GB/s", "gb_per_s", 2),
        ratio(results["results"], "messages_per_s", "mpspmd", ("ranks", "size_bytes")),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "Throughput, to every rank",
        f"medians of {results['rounds']} rounds; {results['settings']['window']} small messages "
        "in a row",
        ("ranks", "size_bytes"),
    )


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = Parser(
        "throughput",
        "Messages a second for small messages, GB/s for tensors.",
        ranks="1,2,4,8",
        rounds=5,
        transports=tuple(name for name in LATENCY if name in OBJECTS),
        known=OBJECTS,
    )
    parser.add("--size", sizes, "64,1M,16M,64M,256M", "BYTES,BYTES", "of a message; 64K, 1M")
    parser.add("--window", count, "64", "N", "how many small messages are sent in a row")
    parser.add("--messages", count, "100000", "N", "timed in each round, at most")
    parser.add("--round-s", number(0.001, 3600), "0.5", "S", "the longest that a round may take")
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
