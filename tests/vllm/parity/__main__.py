"""python -m parity: runs the matrix, or part of it, and writes docs/reference/parity.md.

Results are kept as JSON in build/parity, and what is there isn't run again: an interrupted run goes on
where it was. Run from `tests/vllm`, or by `make parity`.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from pathlib import Path

import vllm_versions

from parity import DOZEN, document, models, rows
from parity.cells import RESULTS, path_of, run_cells
from parity.feature import FEATURES, Feature
from parity.record import Record
from parity.verdict import Verdict, judge

DOCUMENT = vllm_versions.ROOT / "docs" / "reference" / "parity.md"
COLUMNS = ("mp", "mp-spmd")
VERSIONS = ("0.31", "0.32", "0.33")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    parser.add_argument("--rows", help="names, with commas; all by default", default="")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--versions", default=",".join(VERSIONS))
    parser.add_argument(
        "--share", action="store_true", help="rows that use an engine in one process"
    )
    parser.add_argument("--again", action="store_true", help="also what has been run before")
    parser.add_argument("--list", action="store_true", help="only names of rows")
    return parser.parse_args(arguments)


def batches(features: list[Feature], share: bool) -> list[list[str]]:
    """Which rows run in one process: with `share` all that use an engine, ordered by engine."""
    if not share:
        return [[feature.name] for feature in features]
    on_engines = [feature for feature in features if feature.engine is not None]
    engines = list(dict.fromkeys(feature.engine for feature in on_engines))
    together = sorted(on_engines, key=lambda row: (engines.index(row.engine), row.last))
    alone = [[feature.name] for feature in features if feature.engine is None]
    return ([[feature.name for feature in together]] if together else []) + alone


def run(options: argparse.Namespace) -> int:
    """How many of the rows are worse."""
    names = options.rows.split(",") if options.rows else list(FEATURES)
    if options.rows == "dozen":
        names = DOZEN
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise SystemExit(f"no such row: {', '.join(unknown)}; known are {', '.join(FEATURES)}")
    models.make_all(RESULTS / "models")
    versions = options.versions.split(",")
    for batch in batches([FEATURES[name] for name in names], options.share):
        for version in versions:
            for backend in options.columns.split(","):
                _run_missing(version, backend, batch, options.again)
            _run_differing_again(version, batch)
    verdicts = judge_all()
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    before = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    DOCUMENT.write_text(document.write(FEATURES, list(VERSIONS), verdicts, _machine(), before))
    for column, kinds in document.counts(DOCUMENT.read_text()).items():
        print(f"{column}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    worse = 0
    for (name, version), verdict in verdicts.items():
        if name in names and version in versions:
            print(f"{version} {name}: {verdict.kind} {verdict.how}")
            worse += verdict.kind == "worse"
    return worse


def _run_missing(version: str, backend: str, batch: list[str], again: bool) -> None:
    names = [
        name for name in batch if again or not Record.is_there(path_of(version, backend, name))
    ]
    if names:
        print(
            f"{datetime.datetime.now():%H:%M:%S} {version} {backend}: {', '.join(names)}",
            flush=True,
        )
        run_cells(version, backend, names)


def _run_differing_again(version: str, batch: list[str]) -> None:
    """Where values differ: are they vLLM's own from run to run?"""
    differing = [
        name
        for name in batch
        if (found := _verdict(version, name)) and "other values" in found.how
        if not Record.is_there(path_of(version, "mp-again", name))
    ]
    if differing:
        print(f"{version}: mp once more for {', '.join(differing)}", flush=True)
        run_cells(version, "mp", differing, again=True)


def judge_all() -> dict[tuple[str, str], Verdict]:
    """Of all that has been run."""
    found = {}
    for name in FEATURES:
        for version in VERSIONS:
            if (verdict := _verdict(version, name)) is not None:
                found[name, version] = verdict
    return found


def _verdict(version: str, name: str) -> Verdict | None:
    paths = [path_of(version, column, name) for column in (*COLUMNS, "mp-again")]
    if not all(map(Record.is_there, paths[:2])):
        return None
    again = Record.read(paths[2]) if Record.is_there(paths[2]) else None
    return judge(Record.read(paths[0]), Record.read(paths[1]), again, FEATURES[name].right)


def _machine() -> str:
    cores = len(
        [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "processor" in line]
    )
    return (
        f"{cores} virtual cores, no GPU, Python {platform.python_version()}, "
        f"{datetime.date.today():%Y-%m-%d}. vLLM 0.33's Python files run with 0.32's compiled parts, "
        "because 0.33 has no build for CPUs."
    )


if __name__ == "__main__":
    rows.load()
    options = parse()
    if options.list:
        for feature in FEATURES.values():
            print(f"{feature.name:24} {feature.title}")
    else:
        sys.exit(min(run(options), 1))
