"""All benchmarks, and the document that tells what they found.

    python -m benchmarks.suite                       # what `make bench` does
    python -m benchmarks.suite --only paced,idle     # some of them; the document has all that ran

Each run is one of the tools in a process of its own; its results are kept in --folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.options import names
from benchmarks.results import Results

_STRATEGIES = "mpspmd,mpspmd-park,mpspmd-yield,vllm-messagequeue"


class Run(NamedTuple):
    """One call of a tool, and its section in the document."""

    tool: str
    options: str
    title: str
    meaning: str

    @property
    def command(self) -> str:
        return f"python -m benchmarks.{self.tool} {self.options}".rstrip()


RUNS = {
    "round-trips": Run(
        "channel_latency",
        "--ranks 1,2,4,8 --messages 2000 --round-s 0.15",
        "Round trips by number of ranks",
        "One message of 64 bytes at a time, in a closed loop; every rank replies. The mean is what a "
        "loop pays; the p99 is what disturbs it. `c-pingpong` is two processes in C, each on a core of "
        "its own, that do nothing else: what the machine allows. `mpspmd-raw` are bytes without "
        "pickle, `mpspmd` the channels with pickled objects, `mpspmd-engine` a method call through "
        "`Engine`.",
    ),
    "sizes": Run(
        "channel_latency",
        "--ranks 1 --size 64,4K,64K,1M --messages 1000 --round-s 0.15 "
        "--transports c-pingpong,mpspmd-raw,mpspmd,mpspmd-engine,vllm-messagequeue,zmq-ipc,mp-pipe",
        "Round trips by size",
        "The same with one rank and larger requests; the reply stays small. `c-pingpong` copies the "
        "payload in and out, and nothing else.",
    ),
    "paced": Run(
        "paced_latency",
        f"--interval-ms 1,5,20 --jitter 0.05 --ranks 1,2 --messages 40 --transports {_STRATEGIES}",
        "A message every few milliseconds",
        "Decoding at a steady pace: the engine is busy elsewhere from step to step, and the ranks "
        "wait. A transport that never sleeps takes all of a core for each rank; one that always sleeps "
        "is late. `mpspmd` is `auto`, which predicts; the strategies that don't are beside it.",
    ),
    "working": Run(
        "paced_latency",
        f"--gap ranks --interval-ms 5,20 --ranks 2 --messages 40 --transports {_STRATEGIES}",
        "Ranks that compute, and an engine that waits",
        "The other side of a step: each rank sleeps for the interval, then replies. Times are from the "
        "end of that until the reply is in the engine.",
    ),
    "patterns": Run(
        "paced_latency",
        "--interval-ms 2 --ranks 2 --messages 80 "
        f"--patterns steady,shift,bursts,random,alternating --transports {_STRATEGIES}",
        "Intervals that are hard to predict",
        "`shift`: ten times as long from the middle on. `bursts`: 20 messages in a row after a silence "
        "of 40 intervals. `random`: exponentially distributed. `alternating`: 0.1 and 1.9 intervals.",
    ),
    "idle": Run(
        "paced_latency",
        "--idle-s 10 --ranks 2 --rounds 1 --transports mpspmd,mpspmd-engine,vllm-messagequeue",
        "Silence",
        "Ten seconds without a message: what waiting costs when nothing happens, in the engine and in "
        "the busiest rank.",
    ),
    "throughput": Run(
        "throughput",
        "--ranks 1,4 --size 64,1M,16M --round-s 0.15 "
        "--transports mpspmd,mpspmd-engine,vllm-messagequeue,zmq-ipc,mp-pipe,mp-queue",
        "Throughput",
        "Small messages 64 in a row, with a reply to the last one; tensors one at a time, with a reply "
        "to each. GB/s are what each rank gets, decoded into memory of its own.",
    ),
    "tensors": Run(
        "throughput",
        "--ranks 4 --size 64M --round-s 1 --transports mpspmd,mpspmd-engine,vllm-messagequeue",
        "Throughput of large tensors",
        "The same with what no cache holds. New pages of memory, which the kernel has to clear, are a "
        "good part of the time.",
    ),
    "scaling": Run(
        "scaling",
        "--messages 40",
        "Scaling",
        "One broadcast of 64 bytes to ranks that all sleep, on whatever cores there are. `writer` is "
        "what sending takes: with everybody awake no system call is made; with all asleep it is one "
        "FUTEX_WAKE, in which the kernel makes every sleeper runnable, and woken ranks may take the "
        "writer's core before it is through: its CPU time is what it did itself. `last reader` is from "
        "before the send until the last rank has the message: with more ranks than cores they take turns.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0; 1 a run failed, of which the document has nothing."""
    options = _parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    began = time.monotonic()
    for number, name in enumerate(options.only, 1):
        print(
            f"[{number}/{len(options.only)}, {time.monotonic() - began:.0f} s] {name}: "
            f"{RUNS[name].command}",
            file=sys.stderr,
        )
        code = _run(RUNS[name], options.folder / f"{name}.json")
        if code >= 128:
            return code
        if code:
            failed.append(name)
        report.write(options.document, sections(options.folder))
    if failed:
        print(f"suite: failed, at least in part: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def sections(folder: Path) -> dict[str, report.Section]:
    """Of all runs whose results are in the folder."""
    found = {}
    for name, run in RUNS.items():
        path = folder / f"{name}.json"
        if path.exists() and path.stat().st_size:
            results: Results = json.loads(path.read_text())
            found[name] = report.Section(run.title, run.meaning, run.command, results)
    return found


def _run(run: Run, path: Path) -> int:
    """The tool's exit code, 128 + N when a signal ended it."""
    command = [sys.executable, "-m", f"benchmarks.{run.tool}", *run.options.split()]
    with _signals_are_the_tools():
        code = subprocess.run([*command, "--json", str(path)], check=False).returncode
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_are_the_tools() -> Iterator[None]:
    """Ctrl-C reaches the tool as well, which cleans up and says so by its exit code."""
    old = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="suite", description="All benchmarks, and the document of what they found."
    )
    parser.add_argument(
        "--only", type=names(tuple(RUNS), "run"), default=list(RUNS), metavar="NAME,NAME",
        help=f"which of {', '.join(RUNS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("build/benchmarks"), help="where results are kept"
    )
    parser.add_argument(
        "--document", type=Path, default=Path("docs/benchmarks.md"), help="with pictures beside it"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
