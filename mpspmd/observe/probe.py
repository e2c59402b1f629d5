"""Looks at an engine from outside, for `health`: its shared memory, and /proc. Asks no process anything."""

from __future__ import annotations

import time

from mpspmd.observe.discovery import Watched
from mpspmd.observe.health import ELSEWHERE, EngineLook, RankLook
from mpspmd.processes.proc import read_stat

_RECENT = 64
"""So many of the last steps are searched for replies that the engine hasn't taken."""


def look_at(engine: Watched) -> EngineLook:
    stats = engine.read()
    beat_at, pending, _ = engine.page.last_beat
    now = time.monotonic()
    ranks = []
    for rank in stats.ranks:
        line = engine.page.line(rank.rank).snapshot()
        ranks.append(
            RankLook(
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
    return EngineLook(
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
        # The engine's record last: a reply that was sent meanwhile counts as one that it has taken.
        ranks = [recorder.read(track, step) for track in range(1, recorder.n_tracks)]
        replied = [rank[4] for rank in ranks if rank is not None and rank[4]]
        sent = recorder.read(0, step)
        if sent is not None and len(replied) > sent[6]:
            since = max(since, *replied)
    return since / 1e9 if since else None
