"""mpspmd-top: what the engines on this machine and their ranks are doing, live."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mpspmd.cli.typer_command import Version, run_command
from mpspmd.naming import on_node
from mpspmd.observe.straggler import Straggler
from mpspmd.observe.watch import EngineView, RankView, Watcher

_INTERVAL_S = 0.5
_FIND_EVERY = 4
"""Readings between two searches through all processes, which cost more than a reading."""
_WIDE = 152
"""The width, in characters, from which on the wait counters are shown as well."""
_WAITS = ("spins", "yields", "parks", "early", "late", "mispredicted")


def top(
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="An engine's process id; else all.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print once as JSON, for scripts.")
    ] = False,
    version: Version = False,
) -> int:
    """Shows this user's engines: each rank's method and since when, how far it is behind, how busy it is.

    Everything is read from memory that the processes keep anyway, so watching doesn't slow them down.
    """
    watcher = Watcher(run)
    watcher.find()
    if as_json or once:
        time.sleep(_INTERVAL_S)
        views = watcher.read()
        if as_json:
            sys.stdout.write(msgspec.json.encode(views).decode() + "\n")
        else:
            console = Console()
            if not console.is_terminal:
                console.width = _WIDE
            for view in views:
                console.print(_table(view, console.width))
        for line in _remarks(watcher, run, views):
            print(f"mpspmd-top: {line}", file=sys.stderr)
        return 0 if views or run is None else 1
    with (
        contextlib.suppress(KeyboardInterrupt),  # the way to end it
        Live(screen=sys.stdout.isatty(), auto_refresh=False) as live,
    ):
        for reading in itertools.count(1):
            time.sleep(_INTERVAL_S)
            views = watcher.read()
            remarks = [f"[dim]{escape(line)}[/]" for line in _remarks(watcher, run, views)]
            tables = [_table(view, live.console.width) for view in views]
            live.update(Group(*tables, *remarks), refresh=True)
            if reading % _FIND_EVERY == 0:
                watcher.find()
    return 0


def _remarks(watcher: Watcher, run: int | None, views: list[EngineView]) -> list[str]:
    remarks = []
    if watcher.foreign:
        pids = ", ".join(map(str, watcher.foreign))
        remarks.append(f"engines of another version of mpspmd aren't shown: pid {pids}")
    # One of them may be an engine. If we do see an engine, they most likely belong to the system.
    if watcher.unreadable and not views:
        pids = ", ".join(map(str, watcher.unreadable[:5]))
        remarks.append(
            f"{len(watcher.unreadable)} process(es) of this user can't be read (pid {pids}): "
            "run as the user who started them, in the same container, or as root"
        )
    if not views:
        remarks.append("no engine is running" if run is None else f"process {run} is no engine")
    return remarks


def _table(view: EngineView, width: int) -> Table:
    title = (
        f"engine {view.pid}   {view.steps} steps, {view.steps_per_s:.0f}/s   "
        f"bubble {_short(view.bubble.p50) if view.bubble else '?'}   ring {view.ring_fill:.0%}   "
        f"CPU {_percent(view.cpu_percent)}   {_bytes(view.memory_bytes)}"
    )
    table = Table(title=title, caption=escape(view.command[:120]), title_justify="left")
    waits = _WAITS if width >= _WIDE else ()
    for name in (*_cells(view, view.ranks[0]), *waits):
        wraps = name in ("rank", "pid", "state")
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=not wraps)
    for rank in view.ranks:
        counters = [str(rank.stats.counters.get(name, "")) for name in waits]
        style = "dim" if rank.state == "idle" else ""
        table.add_row(*_cells(view, rank).values(), *counters, style=style)
    return table


def _cells(view: EngineView, rank: RankView) -> dict[str, str]:
    """By the names of their columns."""
    stats = rank.stats
    return {
        "rank": str(stats.rank),
        "pid": f"{stats.pid or ''}{on_node(stats.node)}",
        "state": escape(rank.state),
        "for": _seconds(stats.phase_s),
        "step": str(stats.step),
        "lag": str(stats.lag_steps),
        "steps/s": f"{rank.steps_per_s:.0f}",
        "busy": _percent(rank.busy_percent),
        "straggler": _late(view.straggler, rank),
        "CPU": _percent(rank.cpu_percent),
        "memory": _bytes(rank.memory_bytes),
    }


def _late(found: Straggler | None, rank: RankView) -> str:
    return f"+{_short(found.late_s)}" if found and found.rank == rank.stats.rank else ""


def _short(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.0f} min"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} %"


def _bytes(value: int | None) -> str:
    return "?" if value is None else f"{value / (1 << 20):.0f} MiB"


def main() -> None:
    examples = "mpspmd-top; mpspmd-top --once; mpspmd-top --json | jq '.[0].ranks'"
    sys.exit(run_command(top, "mpspmd-top", examples))
