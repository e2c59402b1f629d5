"""Steps over two nodes: ours beside vLLM's MessageQueue and beside a bare pair of ZeroMQ sockets.

    python -m benchmarks.nodes --batch 1,256,1024 --json FILE

The nodes are two network namespaces of this machine with a cable between them, which needs root. A step's
time is from before the request is encoded until the last awaited reply is decoded. Bytes are those on the
cable in both directions, with the headers of Ethernet, IP and TCP. The bare pair carries as many bytes as
our step does, and neither encodes nor decodes.

Each node has as many ranks as the other, and each rank gets each request. `remote` is one rank on each
node, and the remote one's reply is awaited; `both` is the same with both replies awaited; `two-remote` is
two ranks on each node, and the first remote one's reply is awaited. The bare pair has no ranks on node 0.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.errors import BenchmarkError
from benchmarks.latency import no_garbage_collection
from benchmarks.node_pair import LAYOUTS, NodePair, enter_namespace, layout_named
from benchmarks.options import ToolParser, count, counts, names
from benchmarks.progress import Progress
from benchmarks.results import Results, Row, new_results, save
from benchmarks.signals import raise_if_interrupted
from benchmarks.table import Column, faster, figure, print_table, text
from benchmarks.tool import run_tool

if TYPE_CHECKING:
    from benchmarks.node_peers import NodePeer

_WARM_UP = 50
_MEMORY_STEPS = 200_000
_BYTE_STEPS = 50
_BARE_BYTES = 101
"""What a message of the bare pair has on the cable besides its bytes: 66 are the headers of Ethernet, IP
and TCP, 35 those of ZeroMQ and CURVE."""


class Case(NamedTuple):
    """What is sent: `bytes`, of which `size` is the number, or a `step` of vLLM with `size` requests."""

    what: str
    size: int


@dataclass(frozen=True)
class Options:
    batch: list[int]
    ranks: list[str]
    vllm: bool
    steps: int
    rounds: int
    json: Path | None
    plot: Path | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = ToolParser("nodes", "Steps over two nodes.")
    parser.add("--batch", counts, "1,256,1024", "N,N", "how many requests a step has")
    known = tuple(layout.name for layout in LAYOUTS)
    parser.add("--ranks", names(known, "choice of ranks"), ",".join(known), "NAME,NAME", "of these")
    parser.add_argument(
        "--no-vllm", dest="vllm", action="store_false", help="only bytes, without vLLM"
    )
    parser.add("--steps", count, "1000", "N", "how many are timed in a round")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        enter_namespace("benchmarks.nodes", sys.argv[1:] if arguments is None else arguments)
    except BenchmarkError as error:
        print(f"nodes: {error}", file=sys.stderr)
        return 1
    return run_tool("nodes", options, run, show)


def run(options: Options) -> Results:
    if not options.vllm:
        options = replace(options, batch=[])
    results = new_results("nodes", options.rounds, options.steps, {"batch": options.batch})
    cases = [Case("bytes", 64), *(Case("step", batch) for batch in options.batch)]
    pair = NodePair()
    try:
        peers, layouts = _peers(options), [layout_named(name) for name in options.ranks]
        with Progress(len(layouts) * len(peers) * (1 + len(cases))) as progress:
            for layout in layouts:
                sizes: dict[Case, int] = {}
                for peer_class in peers:
                    with tempfile.TemporaryDirectory() as folder:
                        with progress.step(f"{layout.name}: starting {peer_class.name}"):
                            peer = peer_class(pair, Path(folder), layout, steps=bool(options.batch))
                        try:
                            for case in cases:
                                raise_if_interrupted()
                                with progress.step(
                                    f"{layout.name}: {peer.name}, {case.what}, {case.size}"
                                ):
                                    row = _measure(pair, peer, case, sizes, options)
                                results["results"].append(row | {"ranks": layout.name})
                                save(results, options.json)
                        finally:
                            peer.close()
    finally:
        pair.close()
    order = [(layout.name, case) for layout in layouts for case in cases]
    results["results"].sort(
        key=lambda row: order.index((row["ranks"], Case(row["what"], row["size"])))
    )
    save(results, options.json)
    return results


def _peers(options: Options) -> list[type[NodePeer]]:
    from benchmarks.node_peers import BareZmq, Mpspmd

    if not options.vllm:
        return [Mpspmd, BareZmq]
    from benchmarks.node_queue import VllmQueue

    return [Mpspmd, VllmQueue, BareZmq]


def _measure(
    pair: NodePair, peer: NodePeer, case: Case, sizes: dict[Case, int], options: Options
) -> Row:
    """`sizes` gets how many bytes our message has in each case; the bare pair sends as many."""
    rounds = [
        _time(pair, peer, _requests(peer.name, case, sizes, options.steps))
        for _ in range(options.rounds)
    ]
    median = [statistics.median(figures) for figures in zip(*rounds, strict=True)]
    sizes.setdefault(case, max(1, int(median[2]) // 2 - _BARE_BYTES))
    return {
        "backend": peer.name,
        "version": peer.version,
        "what": case.what,
        "size": case.size,
        "p50_us": round(median[0], 1),
        "p99_us": round(median[1], 1),
        "wire_bytes": int(median[2]),
    }


def _requests(name: str, case: Case, sizes: dict[Case, int], steps: int) -> list[Any]:
    if case.what == "bytes" or name == "zmq-curve":
        size = case.size if case.what == "bytes" else sizes[case]
        return [bytes(size)] * (steps + _WARM_UP + _BYTE_STEPS)
    from benchmarks.scenarios import SCENARIOS  # it imports vLLM

    scenario = SCENARIOS["steady"](case.size)
    wanted = min(steps, max(_WARM_UP, _MEMORY_STEPS // case.size)) + _WARM_UP + _BYTE_STEPS
    return [scenario.next() for _ in range(wanted)]


def _time(pair: NodePair, peer: NodePeer, requests: list[Any]) -> tuple[float, float, int]:
    """Microseconds (median, 99th percentile) and bytes of a step."""
    step, clock = peer.step, time.perf_counter_ns
    for request in requests[:_WARM_UP]:
        step(request)
    taken: list[int] = []
    with no_garbage_collection():
        for request in requests[_WARM_UP:-_BYTE_STEPS]:
            began = clock()
            step(request)
            taken.append(clock() - began)
    before = pair.bytes_on_wire()
    for request in requests[-_BYTE_STEPS:]:
        step(request)
    a_step = (pair.bytes_on_wire() - before) // _BYTE_STEPS
    taken.sort()
    return taken[len(taken) // 2] / 1e3, taken[len(taken) * 99 // 100] / 1e3, a_step


def columns(results: Results) -> list[Column]:
    rows, case = results["results"], ("what", "size", "ranks")
    return [
        text("what", "what"),
        figure("size", "size", 0),
        text("ranks", "ranks"),
        text("backend", "backend"),
        text("version", "version"),
        figure("p50", "p50_us"),
        figure("p99", "p99_us"),
        figure("wire bytes", "wire_bytes", 0),
        faster(rows, "p50_us", "vllm-messagequeue", case, "vllm / this"),
        faster(rows, "wire_bytes", "vllm-messagequeue", case, "its bytes / these"),
    ]


def show(results: Results) -> None:
    print_table(
        results,
        columns(results),
        "A step over two nodes, µs",
        f"medians of {results['rounds']} rounds; bytes of a step on the cable, in both directions",
        ("what", "size", "ranks"),
    )


if __name__ == "__main__":
    sys.exit(main())
