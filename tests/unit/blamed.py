"""Events of two ranks, for the tests of `blame`."""

from __future__ import annotations

from dataclasses import replace

from mpspmd.engine.events import (
    Died,
    Exits,
    Phase,
    Raised,
    Ready,
    Reaped,
    ShutDown,
    StartRaised,
    State,
    TimePassed,
)
from mpspmd.errors import RankDied, RankError

LIMIT = "not ready after 5 s"


def error(rank: int, message: str = "a bug", kind: str = "ValueError", step: int = 7) -> RankError:
    return RankError(rank, "method", step, kind, message, "traceback")


def died(rank: int, reason: str = "killed by SIGKILL") -> RankDied:
    return RankDied(rank, 100 + rank, "method", 7, reason)


def raised(
    rank: int,
    message: str = "a bug",
    kind: str = "ValueError",
    method: str = "method",
    awaited: bool = True,
    step: int = 7,
) -> Raised:
    return Raised(rank, step, method, error(rank, message, kind, step), awaited)


BUG = [raised(rank) for rank in (0, 1)]
BROKEN = [raised(rank, "Connection closed by peer") for rank in (0, 1)]
FATAL = [raised(rank, method="execute_model") for rank in (0, 1)]
UNAWAITED = [raised(rank, awaited=False) for rank in (0, 1)]
UNAWAITED_FATAL = [raised(rank, method="execute_model", awaited=False) for rank in (0, 1)]
DESYNC = [raised(rank, kind="CodecDesync") for rank in (0, 1)]
EXITS = [Exits(died(rank, "exit code 3")) for rank in (0, 1)]
DIED = [Died(died(rank)) for rank in (0, 1)]
PENDING = [Died(died(rank, "pending"), pending=True) for rank in (0, 1)]
ENDED = [Died(died(rank, "exit code 0"), clean=True) for rank in (0, 1)]
REAPED = [Reaped(rank, "killed by SIGSEGV") for rank in (0, 1)]
READY = [Ready(rank) for rank in (0, 1)]
START_RAISED = [StartRaised(rank, f"no model on {rank}") for rank in (0, 1)]
DUE = TimePassed()  # at next_due
LATE = TimePassed(("ready", "in its constructor"))
DOWN = ShutDown()

STARTING = State(
    world_size=2, fatal_methods=frozenset({"execute_model"}), start_due=5.0, start_limit=LIMIT
)
RUNNING = replace(STARTING, phase=Phase.RUNNING, ready=frozenset({0, 1}))
