"""Which call fails with what, and whether the run is over: each rule of `blame` on a table of events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from blamed import (
    BROKEN,
    BUG,
    DESYNC,
    DIED,
    DOWN,
    DUE,
    ENDED,
    EXITS,
    FATAL,
    LATE,
    LIMIT,
    PENDING,
    READY,
    REAPED,
    RUNNING,
    START_RAISED,
    STARTING,
    UNAWAITED,
    UNAWAITED_FATAL,
    raised,
)

from mpspmd.engine.blame import (
    EXIT_STATUS_S,
    SETTLE_COLLECTIVE_S,
    SETTLE_S,
    START_SETTLE_S,
    first_cause,
    judge,
    next_due,
)
from mpspmd.engine.events import (
    CallFails,
    Event,
    Explain,
    Reaped,
    Report,
    RunFails,
    Started,
    StartFails,
    State,
    TimePassed,
    Verdict,
)
from mpspmd.errors import RankDied, RankError


def play(state: State, events: Sequence[Event]) -> tuple[State, list[Verdict]]:
    """Judges the events, a millisecond apart; `DUE` comes when the state wants it."""
    now, verdicts = 0.0, []
    for event in events:
        now += 0.001
        if isinstance(event, TimePassed) and next_due(state) < math.inf:
            now = max(now, next_due(state))
        state, told = judge(state, event, now)
        verdicts += told
    return state, verdicts


def texts(verdicts: Sequence[Verdict]) -> list[str]:
    """Each verdict in a few words, for tables."""
    words = []
    for verdict in verdicts:
        match verdict:
            case CallFails(step, why, failed):
                words.append(
                    f"call {step} fails on {sorted(failed)}: rank {why.rank}, {why.message}"
                )  # type: ignore[attr-defined]
            case RunFails(RankDied() as why, rank):
                words.append(f"run fails: rank {rank} {why.reason}")
            case RunFails(RankError() as why, rank):
                words.append(f"run fails: rank {rank} raised {why.exception}: {why.message}")
            case Report(why):
                words.append(f"report rank {why.rank}")  # type: ignore[attr-defined]
            case Explain(rank, reason):
                words.append(f"explain: rank {rank} {reason}")
            case StartFails(causes):
                words.append(f"start fails: {dict(causes)}")
            case Started():
                words.append("started")
    return words


RULES: dict[str, tuple[State, list[Event], list[str]]] = {
    "an error is held: nothing is decided at once": (RUNNING, [BUG[1]], []),
    "a held error ends its call, and the engine goes on": (
        RUNNING,
        [BUG[1], DUE],
        ["call 7 fails on [1]: rank 1, a bug"],
    ),
    "of several errors the first is the cause": (
        RUNNING,
        [BUG[1], BUG[0], DUE],
        ["call 7 fails on [0, 1]: rank 1, a bug"],
    ),
    "a collective's error is not the cause when another rank has a bug": (
        RUNNING,
        [BROKEN[0], BUG[1], DUE],
        ["call 7 fails on [0, 1]: rank 1, a bug"],
    ),
    "a collective's error is the cause when there is nothing else": (
        RUNNING,
        [BROKEN[0], BROKEN[1], DUE],
        ["call 7 fails on [0, 1]: rank 0, Connection closed by peer"],
    ),
    "a bug that comes after a collective's error decides soon": (
        RUNNING,
        [BROKEN[0], BUG[1], DUE, DUE],
        ["call 7 fails on [0, 1]: rank 1, a bug"],
    ),
    "calls that fail together end each with its own error": (
        RUNNING,
        [BUG[0], raised(1, step=8), DUE, DUE],
        ["call 7 fails on [0]: rank 0, a bug", "call 8 fails on [1]: rank 1, a bug"],
    ),
    "a fatal method ends the run": (
        RUNNING,
        [FATAL[1], DUE],
        ["run fails: rank 1 raised ValueError: a bug"],
    ),
    "a rank that has lost the codec's state ends the run": (
        RUNNING,
        [DESYNC[0], DUE],
        ["run fails: rank 0 raised CodecDesync: a bug"],
    ),
    "an error that nobody waits for is reported": (RUNNING, [UNAWAITED[0]], ["report rank 0"]),
    "a fatal one that nobody waits for ends the run at once": (
        RUNNING,
        [UNAWAITED_FATAL[0]],
        ["run fails: rank 0 raised ValueError: a bug", "report rank 0"],
    ),
    "with one rank nothing is held": (
        replace(RUNNING, world_size=1),
        [BUG[0]],
        ["call 7 fails on [0]: rank 0, a bug"],
    ),
    "with one rank a fatal method ends the run at once": (
        replace(RUNNING, world_size=1),
        [FATAL[0]],
        ["run fails: rank 0 raised ValueError: a bug"],
    ),
    "a death ends the run": (RUNNING, [DIED[1]], ["run fails: rank 1 killed by SIGKILL"]),
    "a death explains the error that is held": (
        RUNNING,
        [BROKEN[0], DIED[1], DUE],
        ["run fails: rank 1 killed by SIGKILL"],
    ),
    "a death explains a fatal error that nobody waits for": (
        RUNNING,
        [PENDING[0], UNAWAITED_FATAL[1], DUE],
        ["report rank 1", "run fails: rank 0 pending"],
    ),
    "a death explains a bug that is held, too": (
        RUNNING,
        [BUG[0], DIED[1], DUE],
        ["run fails: rank 1 killed by SIGKILL"],
    ),
    "only the first failure of a run counts": (
        RUNNING,
        [DIED[1], DIED[0], BUG[0], EXITS[0], DUE],
        ["run fails: rank 1 killed by SIGKILL"],
    ),
    "a death whose exit status is pending is held": (RUNNING, [PENDING[0]], []),
    "its exit status completes it": (
        RUNNING,
        [PENDING[0], REAPED[0]],
        ["run fails: rank 0 killed by SIGSEGV"],
    ),
    "without one in time it is told as it is, and explained later, once": (
        RUNNING,
        [PENDING[0], DUE, REAPED[0], REAPED[0]],
        ["run fails: rank 0 pending", "explain: rank 0 killed by SIGSEGV"],
    ),
    "an error waits for the death that may explain it": (
        RUNNING,
        [BUG[1], PENDING[0], DUE],
        ["run fails: rank 0 pending"],
    ),
    "of two deaths the first is to blame": (
        RUNNING,
        [PENDING[0], DIED[1]],
        ["run fails: rank 0 pending"],
    ),
    "also when the second one's exit status comes first": (
        RUNNING,
        [PENDING[0], PENDING[1], REAPED[1], REAPED[0]],
        ["run fails: rank 0 killed by SIGSEGV"],
    ),
    "a death that is noticed twice in different ways counts once": (
        RUNNING,
        [PENDING[0], DIED[0]],
        [],
    ),
    "a death that is noticed twice counts once": (
        RUNNING,
        [PENDING[0], PENDING[0], DUE, DUE],
        ["run fails: rank 0 pending"],
    ),
    "a rank that exits ends the run": (RUNNING, [EXITS[0]], ["run fails: rank 0 exit code 3"]),
    "a rank that leaves is not to blame when another has died": (
        RUNNING,
        [PENDING[1], EXITS[0], DUE],
        ["run fails: rank 1 pending"],
    ),
    "after a shutdown nothing is a failure": (
        RUNNING,
        [DOWN, DIED[0], BUG[1], EXITS[1], REAPED[0], DUE],
        [],
    ),
    "an error that is held at a shutdown ends with the engine": (RUNNING, [BUG[0], DOWN, DUE], []),
    "a death noticed before the shutdown is a failure": (
        RUNNING,
        [PENDING[0], DOWN],
        ["run fails: rank 0 pending"],
    ),
    "all ranks are ready: the run has begun, once": (
        STARTING,
        [READY[1], READY[1], READY[0], READY[0]],
        ["started"],
    ),
    "a rank that can't start: the others may say why for a moment": (
        STARTING,
        [START_RAISED[0]],
        [],
    ),
    "then the start fails": (
        STARTING,
        [START_RAISED[0], DUE],
        ["start fails: {0: 'no model on 0'}"],
    ),
    "the first cause of each rank counts": (
        STARTING,
        [START_RAISED[0], DIED[0], DIED[1]],
        [
            "start fails: {0: 'no model on 0', "
            "1: 'its process ended before all ranks were ready: killed by SIGKILL'}"
        ],
    ),
    "a start fails at once when all ranks have": (
        STARTING,
        [START_RAISED[1], START_RAISED[0]],
        ["start fails: {1: 'no model on 1', 0: 'no model on 0'}"],
    ),
    "a ready rank that leaves a failed start is no cause": (
        STARTING,
        [READY[1], START_RAISED[0], ENDED[1], DUE],
        ["start fails: {0: 'no model on 0'}"],
    ),
    "a ready rank that ends before the others are ready is one": (
        STARTING,
        [READY[1], ENDED[1], DUE],
        ["start fails: {1: 'its process ended before all ranks were ready: exit code 0'}"],
    ),
    "a rank that leaves before all are ready is one": (
        STARTING,
        [READY[1], EXITS[1], DUE],
        ["start fails: {1: 'its process ended before all ranks were ready: exit code 3'}"],
    ),
    "nor when its exit status comes later": (
        STARTING,
        [READY[1], START_RAISED[0], PENDING[1], Reaped(1, "exit code 0", clean=True), DUE],
        ["start fails: {0: 'no model on 0'}"],
    ),
    "nor when its exit status doesn't come": (
        STARTING,
        [READY[1], PENDING[0], PENDING[1], DUE, DUE, DUE],
        ["start fails: {0: 'its process ended before all ranks were ready: pending'}"],
    ),
    "nor when it has ended before it is known to have been ready": (
        STARTING,
        [PENDING[0], ENDED[1], DUE, DUE],
        ["start fails: {0: 'its process ended before all ranks were ready: pending'}"],
    ),
    "but a crash is one": (
        STARTING,
        [READY[1], START_RAISED[0], PENDING[1], REAPED[1]],
        [
            "start fails: {0: 'no model on 0', "
            "1: 'its process ended before all ranks were ready: killed by SIGSEGV'}"
        ],
    ),
    "a late exit status belongs to the cause": (
        STARTING,
        [PENDING[0], REAPED[0], DUE],
        ["start fails: {0: 'its process ended before all ranks were ready: killed by SIGSEGV'}"],
    ),
    "a start without a late exit status fails with what is known": (
        STARTING,
        [PENDING[0], DUE, DUE],
        ["start fails: {0: 'its process ended before all ranks were ready: pending'}"],
    ),
    "a rank that becomes ready doesn't save a failed start": (
        STARTING,
        [READY[1], START_RAISED[0], READY[0], DUE],
        ["start fails: {0: 'no model on 0'}"],
    ),
    "the limit of a start names the ranks that aren't ready": (
        STARTING,
        [READY[0], DUE],
        [f"start fails: {{1: '{LIMIT}'}}"],
    ),
    "and what they are in": (
        STARTING,
        [READY[0], LATE],
        [f"start fails: {{1: '{LIMIT}: in its constructor'}}"],
    ),
    "a rank that has died doesn't let the run begin": (
        STARTING,
        [PENDING[0], READY[0], READY[1], DUE, DUE],
        ["start fails: {0: 'its process ended before all ranks were ready: pending'}"],
    ),
    "an error in a run that hasn't begun is reported": (STARTING, [BUG[0]], ["report rank 0"]),
    "a shutdown ends a start": (STARTING, [READY[0], DOWN, DIED[1], READY[1], DUE], []),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    state, events, expected = RULES[rule]
    assert texts(play(state, events)[1]) == expected


def test_each_error_is_held_as_long_as_its_kind_needs() -> None:
    assert next_due(RUNNING) == math.inf
    assert next_due(judge(RUNNING, BUG[0], 10.0)[0]) == 10.0 + SETTLE_S
    broken = judge(RUNNING, BROKEN[0], 10.0)[0]
    assert next_due(broken) == 10.0 + SETTLE_COLLECTIVE_S
    assert next_due(judge(broken, BROKEN[1], 10.05)[0]) == 10.0 + SETTLE_COLLECTIVE_S
    assert next_due(judge(broken, BUG[1], 10.01)[0]) == pytest.approx(10.01 + SETTLE_S)
    assert next_due(judge(broken, PENDING[1], 10.0)[0]) == 10.0 + EXIT_STATUS_S
    assert next_due(judge(STARTING, READY[0], 1.0)[0]) == 5.0
    assert next_due(judge(STARTING, START_RAISED[0], 1.0)[0]) == 1.0 + START_SETTLE_S


def test_an_error_isnt_decided_before_the_death_that_may_explain_it() -> None:
    state, _ = judge(RUNNING, BUG[1], 1.0)
    state, _ = judge(state, PENDING[0], 1.0 + SETTLE_S / 2)
    assert judge(state, DUE, 1.0 + SETTLE_S) == (state, ())


def test_an_error_isnt_decided_by_the_next_one_but_when_deaths_have_been_polled() -> None:
    held, _ = judge(RUNNING, raised(0, "Connection closed by peer"), now=0.0)
    held, verdicts = judge(held, raised(0, "Connection closed by peer", step=8), now=1.0)
    assert verdicts == ()
    assert next_due(held) < 1.0
    _, (failure,) = judge(held, DIED[1], now=1.0)
    assert isinstance(failure, RunFails)
    assert failure.rank == 1


def test_no_rank_is_late_when_all_are_ready_and_one_has_died() -> None:
    state = replace(STARTING, start_due=10.0)
    state, _ = judge(state, READY[0], now=9.0)
    state, _ = judge(state, PENDING[0], now=9.99)
    state, _ = judge(state, READY[1], now=9.99)
    state, verdicts = judge(state, TimePassed(("ready", "ready")), now=10.0)
    assert verdicts == ()
    state, _ = judge(state, TimePassed(), now=10.0 + EXIT_STATUS_S)
    _, verdicts = judge(state, TimePassed(), now=11.0)
    assert verdicts == (
        StartFails(((0, "its process ended before all ranks were ready: pending"),)),
    )


def test_a_start_that_has_failed_isnt_late_as_well() -> None:
    state, _ = judge(STARTING, START_RAISED[0], 4.9)
    assert judge(state, DUE, 5.0) == (state, ())
    assert texts(judge(state, DUE, 4.9 + START_SETTLE_S)[1]) == [
        "start fails: {0: 'no model on 0'}"
    ]


def test_a_second_rank_that_cannot_start_gives_the_others_no_more_time() -> None:
    state, _ = judge(replace(STARTING, world_size=3), START_RAISED[0], 1.0)
    state, _ = judge(state, START_RAISED[1], 1.1)
    assert next_due(state) == 1.0 + START_SETTLE_S


def test_gloo_and_nccl_errors_are_a_collectives() -> None:
    for message, kind in (
        ("[gloo/transport/tcp/pair.cc] Read error", "RuntimeError"),
        ("NCCL error: unhandled system error", "RuntimeError"),
        ("anything", "DistBackendError"),
        ("[Errno 32] Broken pipe", "BrokenPipeError"),
    ):
        broken = raised(0, message, kind).error
        assert first_cause([(0, broken), (1, BUG[1].error)]) == (1, BUG[1].error), message
