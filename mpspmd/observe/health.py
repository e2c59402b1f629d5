"""Health: whether an engine is alive, from its shared memory and /proc. Asks no process anything."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mpspmd import naming
from mpspmd.naming import rank_name
from mpspmd.observe.discovery import Watched
from mpspmd.processes.proc import read_stat

HELD = {"T": naming.HELD["stopped"], "t": naming.HELD["tracing-stop"]}
"""The states of /proc/PID/stat in which a process does nothing, whatever comes."""
ELSEWHERE = "?"
"""The process is on another machine, whose own processes watch it."""
GONE = ("", "Z", "X")
"""No process, or one that has ended."""

_DEAF_S = 10.0
"""The supervisor runs once a second, on a crowded machine less often."""
_IN_C = "a call in C may hold the interpreter's lock"
_RECENT = 64
"""How many of the last steps are searched for replies that the engine hasn't taken."""


@dataclass(frozen=True)
class RankSnapshot:
    """A rank at one moment."""

    pid: int
    """0 until its process has attached itself."""
    state: str
    """The letter of /proc/PID/stat; "" if there is no such process; or ELSEWHERE."""
    has_died: bool
    phase: str
    method: str
    step: int
    moved_at: float
    """When its phase changed last."""
    unread: bool
    """Whether it has yet to read a request."""
    node: int = 0
    """The machine that `pid` is on; 0: the engine's."""


@dataclass(frozen=True)
class EngineSnapshot:
    """An engine at one moment. Times are of time.monotonic()."""

    pid: int
    state: str
    now: float
    sent_at: float
    """When the last request was sent; 0.0 before the first."""
    beat_at: float
    """When its supervisor ran last, as it does once a second; 0.0 before the ranks were started."""
    pending: int
    """How many calls weren't done then."""
    untaken_since: float | None
    """When a reply came that the engine hasn't taken yet: the latest one. None: there is none."""
    ranks: tuple[RankSnapshot, ...]


@dataclass(frozen=True)
class Health:
    alive: bool
    line: str
    held: bool = False
    """It isn't alive because a process is held, perhaps for a moment by a tool that reads its stack."""


def health_of(engine: Watched, stalled_after_s: float) -> Health:
    return judge(_snapshot(engine), stalled_after_s)


def judge(engine: EngineSnapshot, stalled_after_s: float) -> Health:
    """Not alive: a process is gone or held, or the engine's threads don't run, or a step is under way and
    nobody has moved for so long."""
    who = f"engine {engine.pid}"
    if engine.state in GONE:
        return Health(False, f"{who} has ended")
    for rank, each in enumerate(engine.ranks):
        if each.has_died or (each.pid and each.state in GONE):
            return Health(False, f"{who}: {rank_name(rank, each.pid, each.node)} is dead")
    if engine.state in HELD:
        return Health(False, f"{who} is {HELD[engine.state]}", held=True)
    for rank, each in enumerate(engine.ranks):
        if each.state in HELD:
            name = rank_name(rank, each.pid, each.node)
            return Health(False, f"{who}: {name} is {HELD[each.state]}", held=True)
    if any(rank.phase == "loading" for rank in engine.ranks):
        return Health(True, f"{who} is starting")
    deaf_s = engine.now - engine.beat_at
    if engine.beat_at and deaf_s >= max(stalled_after_s, _DEAF_S):
        return Health(False, f"{who}: its threads haven't run for {deaf_s:.0f} s; {_IN_C}")
    busy = [rank for rank in engine.ranks if rank.unread or rank.phase != "waiting"]
    # A call that timed out leaves a late reply in its ring. The supervisor knows, if it has run since.
    is_wanted = engine.pending > 0 or engine.beat_at < engine.sent_at
    untaken_since = engine.untaken_since if is_wanted else None
    if not busy and untaken_since is None:
        return Health(True, f"{who} is idle")
    moved_at = max([engine.sent_at, untaken_since or 0.0, *(r.moved_at for r in engine.ranks)])
    still_s = max(0.0, engine.now - moved_at)
    if busy:
        step = max(rank.step for rank in busy)
        what = f"step {step}: " + ", ".join(_doing(n, each) for n, each in enumerate(engine.ranks))
    else:
        what = "a reply waits for the engine to take it"
    if still_s < stalled_after_s:
        return Health(True, f"{who} is busy; {what}")
    return Health(False, f"{who} has stalled for {still_s:.0f} s; {what}")


def _doing(rank: int, seen: RankSnapshot) -> str:
    where = seen.phase
    if seen.phase == "running":
        where = f"in {seen.method}"
    elif seen.phase == "waiting" and seen.unread:
        where = "doesn't read its request"
    return f"rank {rank} {where}"


def _snapshot(engine: Watched) -> EngineSnapshot:
    stats = engine.read()
    beat_at, pending, _ = engine.page.last_beat
    now = time.monotonic()
    ranks = []
    for rank in stats.ranks:
        line = engine.page.line(rank.rank).snapshot()
        ranks.append(
            RankSnapshot(
                rank.pid,
                _state(rank.pid) if rank.node == 0 else ELSEWHERE,
                line["has_died"],
                line["phase"],
                line["method"],
                line["step"],
                line["since"] if line["pid"] else now,
                rank.unread_bytes > 0,
                rank.node,
            )
        )
    return EngineSnapshot(
        stats.pid,
        _state(stats.pid),
        now,
        engine.sent_at,
        beat_at,
        pending,
        _untaken_since(engine, stats.steps),
        tuple(ranks),
    )


def _state(pid: int) -> str:
    stat = read_stat(pid) if pid else None
    return "" if stat is None else stat.state


def _untaken_since(engine: Watched, steps: int) -> float | None:
    recorder = engine.recorder
    if recorder is None:
        return None
    since = 0
    for step in range(max(1, steps - min(_RECENT, recorder.n_steps) + 1), steps + 1):
        # Read the engine's record last: then a reply that comes meanwhile counts as taken.
        ranks = [recorder.read(track, step) for track in range(1, recorder.n_tracks)]
        replied = [rank[4] for rank in ranks if rank is not None and rank[4]]
        sent = recorder.read(0, step)
        if sent is not None and len(replied) > sent[6]:
            since = max(since, *replied)
    return since / 1e9 if since else None
