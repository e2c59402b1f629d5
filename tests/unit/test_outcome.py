"""Who is told that a run has failed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mpspmd.engine.outcome import RunOutcome
from mpspmd.errors import EngineClosed, RankError


def _outcome() -> RunOutcome:
    status: Any = None
    return RunOutcome(status)


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_threads")
def test_every_callback_is_called_once_whenever_it_comes() -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(200):
            calls = _add_while_it_fails(pool)
            assert sorted(calls) == [n * 100 + i for n in range(3) for i in range(20)]


def _add_while_it_fails(pool: ThreadPoolExecutor) -> list[int]:
    outcome, begin = _outcome(), threading.Barrier(4)
    calls: list[int] = []

    def add(thread: int) -> None:
        begin.wait()
        for i in range(20):
            outcome.on_failure(lambda cause, number=thread * 100 + i: calls.append(number))  # type: ignore[misc]

    added = [pool.submit(add, thread) for thread in range(3)]
    begin.wait()
    outcome.settle(EngineClosed("a cause"))
    outcome.call_back()
    for each in added:
        each.result()
    return calls


def test_the_first_cause_stays_and_is_told_before_any_caller() -> None:
    outcome, told = _outcome(), []
    first, second = EngineClosed("first"), EngineClosed("second")
    outcome.settle(first, told.append)
    outcome.settle(second, told.append)
    assert outcome.cause is first
    assert told == [first]


def test_each_caller_gets_an_exception_of_its_own() -> None:
    outcome = _outcome()
    cause = RankError(1, "method", 7, "ValueError", "no luck", "Traceback")
    outcome.settle(cause)
    raised = []
    for _ in range(2):
        with pytest.raises(RankError, match="no luck") as caught:
            outcome.raise_cause()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert cause not in raised
    assert cause.__traceback__ is None


def test_a_caller_adds_a_note_to_its_own_exception_alone() -> None:
    outcome, raised = _outcome(), []
    cause = EngineClosed("a cause")
    cause.add_note("for all")
    outcome.settle(cause)
    for _ in range(2):
        with pytest.raises(EngineClosed) as caught:
            outcome.raise_cause()
        raised.append(caught.value)
    raised[0].add_note("for one")
    notes = [error.__notes__ for error in (cause, *raised)]
    assert notes == [["for all"], ["for all", "for one"], ["for all"]]
