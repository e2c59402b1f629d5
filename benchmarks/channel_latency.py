"""The round trip of one message from an engine to its ranks and back, over several transports.

    python -m benchmarks.channel_latency --ranks 1,2,4 --size 64 --rounds 5 --json FILE

Closed loop: the next message is sent when the replies to the last one have come. A request is a
pickled `bytes` of --size bytes, to every rank; a reply is a pickled None. Every transport encodes
and decodes both for every message. With --reply rank0 the other ranks still get and decode the
requests, at their own pace: how far they may lag behind is up to the transport's buffers.
"""

from __future__ import annotations

import json
import os
import sys

from benchmarks.errors import BenchmarkError
from benchmarks.machine import this_machine
from benchmarks.options import Options, parse
from benchmarks.peers import load
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.results import Missing, Results, per_round, row
from benchmarks.rounds import run_rounds, steps
from benchmarks.signals import Interrupted, interruptible, uninterrupted
from benchmarks.table import print_table


def main() -> int:
    """The exit code: 0; 1 a transport failed; 2 a bad option; 128 + signal when interrupted."""
    options = parse()
    try:
        with interruptible():
            results = run(options)
    except Interrupted as interrupted:
        print("channel_latency: interrupted", file=sys.stderr)
        return 128 + interrupted.signum
    except BenchmarkError as error:
        print(f"channel_latency: {error}", file=sys.stderr)
        return 1
    print_table(results, options.size, options.reply)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return 0


def run(options: Options) -> Results:
    """Measures all transports that can be imported, for each number of ranks."""
    results: Results = {
        "benchmark": "channel_latency",
        "machine": this_machine(),
        "rounds": options.rounds,
        "messages_per_round": options.messages,
        "results": [],
        "per_round": [],
        "missing": [],
    }
    request = os.urandom(options.size)
    imports = len(options.transports)
    with Progress(imports + len(options.ranks) * steps(imports, options.rounds)) as progress:
        peers = _load(options.transports, results["missing"], progress)
        for ranks in options.ranks if peers else []:
            setup = Setup(ranks, options.reply)
            latencies = run_rounds(
                peers, setup, request, options.rounds, options.messages, progress
            )
            for peer in peers:
                rounds = latencies[peer.name]
                results["results"].append(
                    row(peer, ranks, options.reply, options.size, rounds, options.messages)
                )
                results["per_round"].append(per_round(peer, ranks, rounds))
    return results


def _load(names: list[str], missing: list[Missing], progress: Progress) -> list[type[Peer]]:
    peers = []
    for name in names:
        with progress.step(f"importing {name}"):
            try:
                # An exception from outside in the middle of its import can abort the process.
                with uninterrupted():
                    peers.append(load(name))
            except Exception as error:
                missing.append({"name": name, "why": f"{type(error).__name__}: {error}"})
    return peers


if __name__ == "__main__":
    sys.exit(main())
