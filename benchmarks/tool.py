"""Tool: the main function that all benchmarks share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.errors import BenchmarkError
from benchmarks.results import Results, save
from benchmarks.signals import Interrupted, interruptible


class Output(Protocol):
    """The options that say where results go, besides the terminal."""

    @property
    def json(self) -> Path | None: ...
    @property
    def plot(self) -> Path | None: ...


_Options = TypeVar("_Options", bound=Output)


def run_tool(
    name: str,
    options: _Options,
    run: Callable[[_Options], Results],
    show: Callable[[Results], None],
) -> int:
    """Runs a benchmark and shows, saves and draws its results.

    The exit code is 0; 1 when something failed, after a line that says what; 128 + N after signal N.
    """
    try:
        with interruptible():
            results = run(options)
    except Interrupted as interrupted:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + interrupted.signum
    except BenchmarkError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    show(results)
    save(results, options.json)
    if options.plot is not None:
        from benchmarks.pictures import draw  # here, because it takes a second and is seldom needed

        draw(results, options.plot)
    return int(any("failed" in missing["why"] for missing in results["missing"]))
