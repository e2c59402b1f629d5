"""mpspmd-alive: whether the engines on this machine are alive, for probes. It asks the engines nothing."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from mpspmd import __version__
from mpspmd.cli.command import prepare_process, tell
from mpspmd.cli.parser import Parser
from mpspmd.observe.discovery import Watched, find_engines
from mpspmd.observe.health import Health, health_of

_AGAIN_S = 0.1
"""After so long a held process is checked again: tools that read stacks hold it for a few milliseconds."""


def alive(pid: int | None, stalled_after_s: float) -> Health:
    found = find_engines(pid)
    if found.foreign:
        other = found.foreign[0]
        return Health(False, f"process {other} is an engine of another version of mpspmd")
    if found.engines:
        healths = [_health(engine, stalled_after_s) for engine in found.engines]
        return min(healths, key=lambda health: health.alive)
    n = len(found.unreadable)
    if pid is None:
        more = f"; {n} process(es) of this user can't be read" if n else ""
        return Health(False, f"no engine of this user is running{more}")
    if n:
        why = "can't be read: run as its user, in the same container, or as root"
        return Health(False, f"process {pid} {why}")
    return Health(False, f"process {pid} is no engine")


def _health(engine: Watched, stalled_after_s: float) -> Health:
    health = health_of(engine, stalled_after_s)
    if health.held:
        time.sleep(_AGAIN_S)
        health = health_of(engine, stalled_after_s)
    return health


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds above 0")


def main() -> None:
    prepare_process()
    parser = Parser(
        "mpspmd-alive",
        description="Says in one line whether an engine is alive. Exit code 0: it is. Exit code 1: a step "
        "is under way and no rank has moved for too long, a process is dead or stopped, or there is no "
        "engine.",
        epilog="Examples: mpspmd-alive; mpspmd-alive 1234 --stalled-after 120",
    )
    parser.add_argument(
        "pid", nargs="?", type=int, help="An engine's process id; else all engines of this user."
    )
    parser.add_argument(
        "--stalled-after",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="How long a step may take while no rank begins or ends anything (60).",
    )
    parser.add_argument("--version", action="version", version=f"mpspmd {__version__}")
    options = parser.parse_args()
    health = alive(options.pid, options.stalled_after)
    tell(health.line, 1)  # the exit code counts, even if nobody reads the line
    sys.exit(0 if health.alive else 1)
