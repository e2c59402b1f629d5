"""What is alive and what isn't, by what can be seen from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpspmd.observe.health import EngineSnapshot, RankSnapshot, judge

NOW = 100_000.0
IDLE = RankSnapshot(11, "S", False, "waiting", "execute_model", 7, NOW - 3600, False)
ENGINE = EngineSnapshot(10, "S", NOW, NOW - 3600, NOW - 1, 0, None, (IDLE, IDLE))


def rank(**changes: Any) -> RankSnapshot:
    return replace(IDLE, **changes)


def engine(*ranks: RankSnapshot, **changes: Any) -> EngineSnapshot:
    return replace(ENGINE, **{"ranks": ranks or ENGINE.ranks} | changes)


RUNNING = rank(phase="running", moved_at=NOW - 50, step=8)
STILL = rank(phase="running", moved_at=NOW - 61, step=8)
HOUR = NOW - 3600


@pytest.mark.parametrize(
    ("seen", "alive", "words"),
    [
        (engine(), True, "engine 10 is idle"),
        (engine(sent_at=0.0), True, "is idle"),
        (engine(state=""), False, "engine 10 has ended"),
        (engine(state="Z"), False, "has ended"),
        (engine(state="T"), False, "engine 10 is stopped"),
        (engine(state="D"), True, "is idle"),
        (engine(rank(pid=0, phase="loading"), IDLE), True, "is starting"),
        (engine(rank(pid=0, phase="loading", state=""), IDLE), True, "is starting"),
        (engine(IDLE, rank(has_died=True)), False, "rank 1 (pid 11) is dead"),
        (engine(rank(state=""), IDLE), False, "rank 0 (pid 11) is dead"),
        (engine(IDLE, rank(has_died=True, node=2)), False, "rank 1 on node 2 (pid 11) is dead"),
        (engine(rank(state="?"), IDLE), True, "is idle"),
        (engine(rank(state="T"), IDLE), False, "rank 0 (pid 11) is stopped"),
        (engine(rank(state="t"), IDLE), False, "held by a debugger"),
        # One long step: its ranks moved within the limit, or didn't.
        (
            engine(RUNNING, RUNNING, sent_at=NOW - 51),
            True,
            "is busy; step 8: rank 0 in execute_model",
        ),
        (engine(STILL, STILL, sent_at=NOW - 62), False, "has stalled for 61 s; step 8"),
        (engine(STILL, RUNNING, sent_at=NOW - 62), True, "is busy"),
        (engine(STILL, STILL, sent_at=NOW - 5), True, "is busy"),
        # A rank that doesn't read, and others that are done.
        (engine(rank(unread=True), IDLE, sent_at=NOW - 5), True, "is busy"),
        (
            engine(rank(unread=True), IDLE, sent_at=NOW - 70),
            False,
            "rank 0 doesn't read its request",
        ),
        # A reply that the engine doesn't take; if no call is under way, nobody wants it.
        (engine(untaken_since=NOW - 70, pending=1), False, "a reply waits for the engine"),
        (engine(untaken_since=NOW - 50, pending=1), True, "is busy"),
        (engine(untaken_since=NOW - 70, pending=0), True, "is idle"),
        (engine(untaken_since=NOW - 9, sent_at=NOW - 9, beat_at=NOW - 9.5), True, "a reply waits"),
        # Its threads don't run.
        (engine(beat_at=NOW - 61), False, "its threads haven't run for 61 s"),
        (engine(beat_at=NOW - 59), True, "is idle"),
        (engine(beat_at=0.0), True, "is idle"),
    ],
)
def test_the_verdict(seen: EngineSnapshot, alive: bool, words: str) -> None:
    health = judge(seen, 60)
    assert (health.alive, words in health.line) == (alive, True), health.line
    assert "\n" not in health.line


def test_the_limit_is_the_users() -> None:
    seen = engine(STILL, STILL, sent_at=HOUR)
    assert judge(seen, 62).alive
    assert not judge(seen, 60).alive
    assert judge(engine(beat_at=NOW - 5), 1).alive  # the supervisor may be slow for a moment


def test_only_a_process_that_is_held_is_worth_a_second_check() -> None:
    assert judge(engine(state="t"), 60).held
    assert judge(engine(rank(state="T"), IDLE), 60).held
    assert not judge(engine(STILL, STILL), 60).held
    assert not judge(engine(IDLE, rank(has_died=True)), 60).held
