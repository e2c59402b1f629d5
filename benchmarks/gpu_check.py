"""Checks and measures mpspmd on a machine with NVIDIA GPUs, in five minutes: what `make gpu-check` does.

    python -m benchmarks.gpu_check

First it runs the tests in tests/gpu. Without a GPU they run on the CPU, and that is all. With one it
measures as long as there is time, vLLM too if it is installed, and writes docs/benchmarks-gpu.md. It needs
no network. Exit code 0: the tests have passed, and vLLM's tokens were the same as with `mp`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.nvidia import Gpu, gpus
from benchmarks.results import Results
from benchmarks.runs import GPU_RUNS, VLLM, Run

LIMIT_S = 290.0
_ROOT = Path(__file__).parents[1]
_STOP_S = 15.0


class Check(NamedTuple):
    """One test, and what has come of it: passed, skipped or failed, with the reason."""

    claim: str
    outcome: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LIMIT_S
    found = gpus()
    checks, output = run_tests(options.tests, options.folder / "tests.xml")
    if any(check.outcome.startswith("failed") for check in checks) or not checks:
        print(output, file=sys.stderr)
        return 1
    passed = sum(check.outcome == "passed" for check in checks)
    if not found:
        print(f"gpu-check: there is no NVIDIA GPU here; {passed} tests have passed on the CPU")
        return 0
    if not _torch_has_gpus():
        print(f"gpu-check: this PyTorch can't use the {found[0].name}", file=sys.stderr)
        return 1
    print(f"gpu-check: {passed} tests have passed on {_names(found)}", file=sys.stderr)
    runs = {name: with_ranks(run, min(2, len(found))) for name, run in GPU_RUNS.items()}
    missing = dict(measure(runs, options.folder, deadline))
    first = list(introduction(found, checks, runs, missing))
    differing = write(options.document, runs, options.folder, first)
    print(f"gpu-check: {options.document} is written", file=sys.stderr)
    if differing:
        print(f"gpu-check: tokens are not mp's with {differing} requests", file=sys.stderr)
    return int(bool(differing))


def run_tests(tests: str, record: Path) -> tuple[list[Check], str]:
    """What has come of each test, and what pytest has printed."""
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(
        [*command, f"--junitxml={record}"], cwd=_ROOT, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    return (list(checks_of(record.read_text())) if record.exists() else []), output


def checks_of(junit: str) -> Iterator[Check]:
    """The tests of a JUnit report."""
    for case in ElementTree.fromstring(junit).iter("testcase"):
        claim = case.get("name", "").removeprefix("test_").replace("_", " ")
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                word = "skipped" if child.tag == "skipped" else "failed"
                outcome = f"{word}: {child.get('message', '').partition(chr(10))[0]}"
        yield Check(claim, outcome)


def with_ranks(run: Run, ranks: int) -> Run:
    return run._replace(options=run.options.replace("--tp 2", f"--tp {ranks}"))


def measure(runs: Mapping[str, Run], folder: Path, deadline: float) -> Iterator[tuple[str, str]]:
    """Runs what there is time for. Yields each run that has no results, or not all, with the reason."""
    for name, run in runs.items():
        path = folder / f"{name}.json"
        path.unlink(missing_ok=True)
        left = deadline - time.monotonic()
        if name in VLLM and importlib.util.find_spec("vllm") is None:
            yield name, "vLLM is not installed"
        elif left < _STOP_S:
            yield name, "there was no time left"
        elif why := _run(run, path, left - _STOP_S):
            yield name, why


def _run(run: Run, path: Path, seconds: float) -> str:
    """Why the tool has failed, or was stopped; empty if neither."""
    print(f"gpu-check: {run.command}", file=sys.stderr)
    command = [sys.executable, "-m", f"benchmarks.{run.tool}", *run.options.split()]
    tool = subprocess.Popen([*command, "--json", str(path)], cwd=_ROOT)
    try:
        code = tool.wait(seconds)
    except subprocess.TimeoutExpired:
        tool.send_signal(signal.SIGINT)  # it stops its processes
        try:
            tool.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            tool.kill()
            tool.wait()
        return f"stopped after {seconds:.0f} s"
    return f"exit code {code}" if code else ""


def write(document: Path, runs: Mapping[str, Run], folder: Path, first: Sequence[str]) -> list[int]:
    """Writes the document. Returns with how many requests vLLM's tokens weren't mp's."""
    from benchmarks import report  # here, because it imports matplotlib

    sections, differing = {}, []
    for name, run in runs.items():
        path = folder / f"{name}.json"
        if path.exists() and path.stat().st_size:
            results: Results = json.loads(path.read_text())
            sections[name] = report.Section(run.title, run.meaning, run.command, results)
            differing += [
                row["concurrency"] for row in results["results"] if not row.get("same_tokens", True)
            ]
    report.write(document, sections, first)
    return differing


def introduction(
    found: Sequence[Gpu],
    checks: Sequence[Check],
    runs: Mapping[str, Run],
    missing: Mapping[str, str],
) -> Iterator[str]:
    """What stands in the document before the figures."""
    yield f"{_names(found)}; driver {found[0].driver}.\n"
    yield "## Checks\n"
    yield "\n".join(f"- {check.claim}: {check.outcome}" for check in checks) + "\n"
    if missing:
        yield "## Not measured, or not to the end\n"
        yield "\n".join(f"- {runs[name].title}: {why}" for name, why in missing.items()) + "\n"


def _names(found: Sequence[Gpu]) -> str:
    kinds = [f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB)" for gpu in found]
    return ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))


def _torch_has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description="Checks mpspmd on GPUs.")
    parser.add_argument("--tests", default="tests/gpu", help="which tests (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/gpu-check"), help="where results are kept"
    )
    parser.add_argument(
        "--document", type=Path, default=Path("docs/benchmarks-gpu.md"), help="what is written"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
