"""Blame: which call fails with what, and whether the run is over.

This module decides and does nothing else: it knows no thread, clock, socket or ring. The supervisor turns
what it sees into events, gives each to `judge` in the order in which it was seen, and carries out the
verdicts. It gives `TimePassed` when `next_due` has come, and it polls for deaths before that, so that a
death that has been noticed is always judged before an error that may only be its consequence.

A rank whose collective breaks because another rank has died or raised is not to blame. So an error is held
for a moment before the call fails with it. Meanwhile a better explanation may come.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from mpspmd.engine.events import (
    CallFails,
    Died,
    Dying,
    Event,
    Exits,
    Explain,
    Held,
    Phase,
    Raised,
    Ready,
    Reaped,
    Report,
    RunFails,
    ShutDown,
    Started,
    StartFails,
    StartRaised,
    State,
    TimePassed,
    Verdict,
)
from mpspmd.errors import RankDied, RankError
from mpspmd.exceptions.fault import is_desync

Judgement: TypeAlias = tuple[State, tuple[Verdict, ...]]

SETTLE_S = 0.02
"""How long an error is held. Meanwhile other ranks may fail in the same call too, or finish it."""

SETTLE_COLLECTIVE_S = 0.08
"""How long an error is held that the end of another rank may have caused."""

START_SETTLE_S = 0.25
"""How long other ranks may report why they fail to start, after the first. One of them may be the cause."""

EXIT_STATUS_S = 0.04
"""How long a death is held whose reason isn't complete yet."""

# What ranks raise when another rank has ended: gloo tells it by the message, NCCL by the type.
_COLLECTIVE_TYPES = {"DistBackendError", "DistNetworkError", "DistStoreError", "DistError"}
_COLLECTIVE_WORDS = re.compile(r"gloo|nccl|connection (closed|reset) by peer|broken pipe", re.I)


def judge(state: State, event: Event, now: float) -> Judgement:
    """What is known after an event at the time `now`, and what is to be done about it."""
    match event:
        case ShutDown():
            # A death that was noticed before the shutdown is a failure of the run.
            verdicts: tuple[Verdict, ...] = ()
            if state.phase is Phase.RUNNING:
                state, verdicts = _blame_dying(state, math.inf)
            return _over(state), verdicts
        case Reaped():
            return _reaped(state, event, now)
        case Died(error=error) if error.rank in state.dead:
            return state, ()
        case Died(error=error):
            state = replace(state, dead=state.dead | {error.rank})
    if state.phase is Phase.OVER:
        return state, ()
    if state.phase is Phase.STARTING:
        return _judge_start(state, event, now)
    return _judge_run(state, event, now)


def next_due(state: State) -> float:
    """When `TimePassed` is to be judged next."""
    if state.phase is Phase.STARTING:
        limit = state.start_settled if state.start_failures else state.start_due
        return min([limit, *(each.due for each in state.dying)])
    # As long as the first death isn't explained, it may explain the errors that are held.
    if state.dying:
        return state.dying[0].due
    return min((each.due for _, each in state.held), default=math.inf)


# While the ranks start.


def _judge_start(state: State, event: Event, now: float) -> Judgement:
    match event:
        case Ready(rank=rank):
            state = replace(state, ready=state.ready | {rank})
            failing = state.start_failures or state.dying
            if len(state.ready) == state.world_size and not failing:
                return replace(state, phase=Phase.RUNNING), (Started(),)
        case StartRaised(rank=rank, cause=cause):
            state = _fail_start(state, rank, cause, now)
        case Exits(error=error):
            state = _fail_start(state, error.rank, _ended_early(error), now)
        case Died(clean=True) if state.start_failures or state.dying:
            pass  # it was ready, and has ended because the start has failed
        case Died(error=error, pending=True):
            state = _add_dying(state, error, now)
        case Died(error=error):
            state = _fail_start(state, error.rank, _ended_early(error), now)
        case Raised(error=error):
            return state, (Report(error),)
        case TimePassed(places=places):
            for each in state.dying:
                if each.due <= now:
                    state = _end_early(state, each, now)
            late = sorted(set(range(state.world_size)) - state.ready)
            # None is late when all are ready, and a death among them isn't explained yet.
            if late and state.start_due <= now and not state.start_failures:
                words = [f"{state.start_limit}: {place}" for place in places]
                causes = tuple((n, words[n] if words else state.start_limit) for n in late)
                state = replace(state, start_failures=causes, start_settled=now)
    if state.start_settled <= now or len(state.start_failures) == state.world_size:
        return _over(state), (StartFails(state.start_failures),)
    return state, ()


def _fail_start(state: State, rank: int, cause: str, now: float) -> State:
    """The first cause of a rank counts: after an exception its process ends as well."""
    dying = tuple(each for each in state.dying if each.error.rank != rank)
    if rank in dict(state.start_failures):
        return replace(state, dying=dying)
    return replace(
        state,
        dying=dying,
        start_failures=(*state.start_failures, (rank, cause)),
        start_settled=min(state.start_settled, now + START_SETTLE_S),
    )


def _end_early(state: State, end: Dying, now: float) -> State:
    """Blames a rank for the failed start. But if another rank has failed or died before, and this one has
    ended in order, it has ended because of that, and isn't blamed."""
    others = state.start_failures or state.dying[0] is not end
    clean = end.error.rank in state.ready if end.clean is None else end.clean
    if others and clean:
        return replace(state, dying=tuple(each for each in state.dying if each is not end))
    return _fail_start(state, end.error.rank, _ended_early(end.error), now)


def _ended_early(error: RankDied) -> str:
    return f"its process ended before all ranks were ready: {error.reason}"


# While the run lasts.


def _judge_run(state: State, event: Event, now: float) -> Judgement:
    match event:
        case Raised(awaited=False, rank=rank, method=method, error=error):
            # A death without a reason yet is the cause of errors that come after it.
            if _is_fatal(state, method, error) and not state.dying:
                return _over(state), (RunFails(error, rank), Report(error))
            return state, (Report(error),)
        case Raised():
            state = _hold(state, event, now)
            # With one rank there is nobody else to blame, and nobody who could still finish.
            if state.world_size == 1:
                return _conclude(state, math.inf)
        case Exits(error=error) if not state.dying:
            return _over(state), (RunFails(error, error.rank),)
        case Died(error=error, pending=True):
            return _add_dying(state, error, now), ()
        case Died() if state.dying:
            return _blame_dying(state, math.inf)  # the other one died first
        case Died(error=error):
            return _over(state), (RunFails(error, error.rank),)
        case TimePassed():
            state, verdicts = _blame_dying(state, now)
            return (state, verdicts) if verdicts else _conclude(state, now)
    return state, ()


def _hold(state: State, event: Raised, now: float) -> State:
    """A call's errors are held until one of them has been held as long as its kind needs."""
    due = now + (SETTLE_COLLECTIVE_S if is_collective(event.error) else SETTLE_S)
    held = dict(state.held)
    before = held.get(event.step, Held(event.method, math.inf, ()))
    errors = (*before.errors, (event.rank, event.error))
    held[event.step] = Held(before.method, min(before.due, due), errors)
    return replace(state, held=tuple(held.items()))


def _conclude(state: State, now: float) -> Judgement:
    """Decides the calls whose errors have been held long enough."""
    if state.dying:
        return state, ()
    due = sorted((each.due, step) for step, each in state.held if each.due <= now)
    held = dict(state.held)
    verdicts: list[Verdict] = []
    for _, step in due:
        call = held.pop(step)
        rank, error = first_cause(call.errors)
        # A rank that can't decode requests has missed them, and other ranks have run them already.
        failed = CallFails(step, error, frozenset(rank for rank, _ in call.errors))
        if _is_fatal(state, call.method, error):
            return _over(state), (*verdicts, RunFails(error, rank, failed))
        verdicts.append(failed)
    return replace(state, held=tuple(held.items())), tuple(verdicts)


# Deaths whose exit status comes later.


def _add_dying(state: State, error: RankDied, now: float) -> State:
    return replace(state, dying=(*state.dying, Dying(error, now + EXIT_STATUS_S)))


def _blame_dying(state: State, now: float) -> Judgement:
    """Blames the first death, without an exit status, if the exit status hasn't come in time."""
    if not state.dying or state.dying[0].due > now:
        return state, ()
    error = state.dying[0].error
    state = replace(_over(state), unexplained=state.unexplained | {error.rank})
    return state, (RunFails(error, error.rank),)


def _reaped(state: State, event: Reaped, now: float) -> Judgement:
    if event.rank in state.unexplained:
        state = replace(state, unexplained=state.unexplained - {event.rank})
        return state, (Explain(event.rank, event.reason),)
    dying = tuple(
        Dying(with_reason(each.error, event.reason), now, event.clean)
        if each.error.rank == event.rank
        else each
        for each in state.dying
    )
    state = replace(state, dying=dying)
    # The first of several deaths is to blame. So a later one waits until the first one's reason is known.
    if not dying or dying[0].error.rank != event.rank:
        return state, ()
    if state.phase is Phase.STARTING:
        return _judge_start(state, TimePassed(), now)
    return _over(state), (RunFails(dying[0].error, event.rank),)


def with_reason(error: RankDied, reason: str) -> RankDied:
    return RankDied(error.rank, error.pid, error.method, error.step, reason, error.node)


# Who is to blame.


def first_cause(errors: Iterable[tuple[int, Exception]]) -> tuple[int, Exception]:
    """The first error that isn't a collective's, or else the first: when a rank fails, collectives fail on
    all others."""
    errors = list(errors)
    return next((pair for pair in errors if not is_collective(pair[1])), errors[0])


def _is_fatal(state: State, method: str, error: Exception) -> bool:
    return method in state.fatal_methods or is_desync(error)


def is_collective(error: Exception) -> bool:
    """Whether the error looks like one that the end of another rank has caused."""
    if not isinstance(error, RankError):
        return False
    return error.exception in _COLLECTIVE_TYPES or bool(_COLLECTIVE_WORDS.search(error.message))


def _over(state: State) -> State:
    return replace(state, phase=Phase.OVER, held=(), dying=())
