"""mpspmd-trace: what an engine and its ranks did in the last steps, as a timeline or in figures."""

from __future__ import annotations

import re
import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpspmd.cli.typer_command import Version, run_command
from mpspmd.errors import DumpError
from mpspmd.observe.discovery import find_engines
from mpspmd.observe.dump import read_dump
from mpspmd.observe.records import Records, parse
from mpspmd.observe.summary import Spread, Summary, summarize
from mpspmd.observe.timeline import chrome_trace

_WIDTH = 110
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "": 1.0}


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|min|)", text)
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter("must be a time such as 5s, 500ms or 2min")
    return float(found[1]) * _UNITS[found[2]]


def trace(
    target: Annotated[
        str, typer.Argument(metavar="PID|DUMP", help="An engine's process id, or a dump file.")
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="The file for the timeline; else standard output."),
    ] = None,
    last: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="Only the last 5s, 500ms or 2min."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print figures instead of the timeline.")
    ] = False,
    version: Version = False,
) -> int:
    """Writes the last steps of an engine and its ranks as a Chrome trace, for ui.perfetto.dev.

    It reads them from shared memory, or from the dump of a run that has failed.

    The engine does nothing for it.
    """
    try:
        records, remarks = _records(target)
    except (DumpError, _NotThere) as error:
        print(f"mpspmd-trace: {error}", file=sys.stderr)
        return 1
    if last is not None:
        records = records.since(records.at_ns - int(last * 1e9))
    for remark in remarks:
        print(remark, file=sys.stderr)
    if summary:
        console = Console()
        console.width = max(console.width, _WIDTH)
        console.print(_tables(summarize(records)))
        if output is None:
            return 0
    data = msgspec.json.encode(chrome_trace(records))
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    try:
        with open(output, "wb") as file:
            file.write(data)
    except OSError as error:
        print(f"mpspmd-trace: {output}: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"{output}: {len(records.engine)} steps; open it at https://ui.perfetto.dev",
        file=sys.stderr,
    )
    return 0


class _NotThere(Exception):
    """There is nothing to read."""


def _records(target: str) -> tuple[Records, list[str]]:
    """The records, and what there is to say about a dump. DumpError, _NotThere."""
    if not target.isdecimal():
        dump = read_dump(target)
        about = dump.about
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["time"]))
        first = f"engine {about['pid']}, {when}: {about['cause']}"
        return dump.records, [first, *dump.places]
    found = find_engines(int(target))
    if found.unreadable:
        raise _NotThere(f"process {target} can't be read: run as its user, or as root")
    if found.foreign:
        raise _NotThere(f"process {target} is an engine of another version of mpspmd")
    if not found.engines:
        raise _NotThere(f"process {target} is no engine")
    recorders = [engine.recorder for engine in found.engines if engine.recorder is not None]
    for engine in found.engines:
        engine.close()
    if not recorders:
        raise _NotThere(f"engine {target} records nothing: MPSPMD_RECORD_STEPS=0")
    # A process may have several engines: the one that was used last is meant.
    copies = [parse(recorder.copy(), time.monotonic_ns()) for recorder in recorders]
    return max(copies, key=lambda records: records.newest_ns), []


def _tables(summary: Summary) -> RenderableType:
    title = (
        f"engine {summary.pid}: {summary.steps} steps in {summary.seconds:.3f} s, "
        f"{summary.steps_per_s:.0f} steps/s"
    )
    times = Table(title=title, title_justify="left")
    for name in ("", "median", "90 %", "99 %", "of the time"):
        times.add_column(name, justify="right" if name else "left")
    times.add_row("engine's bubble", *_cells(summary.bubble, summary.seconds))
    for rank, spread in enumerate(summary.idle):
        times.add_row(f"rank {rank} idle", *_cells(spread, summary.seconds))
    methods = Table(title="methods, the mean of the ranks", title_justify="left")
    for name in ("method", "steps", "running", "collective"):
        methods.add_column(name, justify="left" if name == "method" else "right")
    for each in summary.methods:
        cells = (str(each.steps), _time(each.running_s), _time(each.collective_s))
        methods.add_row(Text(each.method), *cells)
    return Group(times, methods, Text(_straggler(summary)))


def _straggler(summary: Summary) -> str:
    found = summary.straggler
    if found is None:
        return "straggler: none"
    return (
        f"straggler: rank {found.rank}, ready {_time(found.late_s)} after the others in the median step, "
        f"last in {found.share:.0%} of {found.steps} steps"
    )


def _cells(spread: Spread | None, seconds: float) -> tuple[str, ...]:
    if spread is None:
        return ("", "", "", "")
    part = f"{spread.total / seconds:.0%}" if seconds else ""
    return _time(spread.p50), _time(spread.p90), _time(spread.p99), part


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def main() -> None:
    examples = (
        "mpspmd-trace 1234 -o trace.json; mpspmd-trace 1234 --last 5s --summary; "
        "mpspmd-trace mpspmd-1234-20260102T030405.678.dump -o trace.json"
    )
    sys.exit(run_command(trace, "mpspmd-trace", examples))
