"""Runs all benchmarks, and writes the documents with their results.

    python -m benchmarks.suite                       # the channels: what `make bench` does
    python -m benchmarks.suite --vllm                # vLLM's steps: what `make bench-vllm` does
    python -m benchmarks.suite --only paced,idle     # some of them

Each run is a process of one of the tools; its results are kept in --folder. A document has a section for
each run whose results are there.
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

from benchmarks import report
from benchmarks.options import names
from benchmarks.results import Results
from benchmarks.runs import CHANNELS, DOCUMENTS, RUNS, VLLM, Run


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 if a run failed."""
    options = _parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    began = time.monotonic()
    for number, name in enumerate(options.runs, 1):
        print(
            f"[{number}/{len(options.runs)}, {time.monotonic() - began:.0f} s] {name}: "
            f"{RUNS[name].command}",
            file=sys.stderr,
        )
        code = _run(RUNS[name], options.folder / f"{name}.json")
        if code >= 128:
            return code
        if code:
            failed.append(name)
        for document, named in DOCUMENTS.items():
            if name in named:
                report.write(options.documents / document, sections(options.folder, named))
    if failed:
        print(f"suite: failed, at least in part: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def sections(folder: Path, runs: Sequence[str]) -> dict[str, report.Section]:
    """The sections of the runs whose results are in the folder."""
    found = {}
    for name in runs:
        run = RUNS[name]
        path = folder / f"{name}.json"
        if path.exists() and path.stat().st_size:
            results: Results = json.loads(path.read_text())
            found[name] = report.Section(run.title, run.meaning, run.command, results)
    return found


def _run(run: Run, path: Path) -> int:
    """The tool's exit code; 128 + N if signal N ended it."""
    command = [sys.executable, "-m", f"benchmarks.{run.tool}", *run.options.split()]
    with _signals_are_the_tools():
        code = subprocess.run([*command, "--json", str(path)], check=False).returncode
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_are_the_tools() -> Iterator[None]:
    """Ignores Ctrl-C within: the tool gets it too, cleans up, and its exit code says so."""
    old = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="suite", description="All benchmarks, and the documents of what they found."
    )
    parser.add_argument(
        "--only", type=names(tuple(RUNS), "run"), dest="runs", default=CHANNELS, metavar="NAME,NAME",
        help=f"which of {', '.join(RUNS)} (default: {', '.join(CHANNELS)})",
    )  # fmt: skip
    parser.add_argument(
        "--vllm",
        action="store_const",
        dest="runs",
        const=VLLM,
        help=f"the same as --only {','.join(VLLM)}",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build/benchmarks"), help="where results are kept"
    )
    parser.add_argument(
        "--documents", type=Path, default=Path("docs"), help="where what they found is written"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
