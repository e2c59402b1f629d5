"""Steps of several calls: the first has no reply, and what it raises is the outcome of the others."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workers

from mpspmd import Engine
from mpspmd.errors import ConfigError, RankError, StepTimeout

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(workers.Stepping, world_size=2) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_stays_awaited(engine: Engine) -> Iterator[None]:
    yield
    assert engine.collective_rpc("rank") == [0, 1]
    assert not engine._table.pending


def test_the_last_call_has_the_steps_reply(engine: Engine) -> None:
    late = engine.stats().late_replies
    step = engine.steps.send("first", ("x",), reply_ranks=0)
    assert engine.steps.call("last", reply_ranks=0, ends=step) == "x"
    step = engine.steps.send("first", ("y",))
    assert engine.steps.call("last", ends=step, non_block=True).result() == ["y", "y"]
    assert engine.stats().late_replies == late


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("non_block", [False, True])
def test_what_the_first_call_raises_is_the_outcome_of_the_last(
    engine: Engine, rank: int, non_block: bool, go: Path
) -> None:
    step = engine.steps.send("first", ("x", rank), reply_ranks=0)

    def outcome() -> None:
        last = engine.steps.call("last", (str(go),), reply_ranks=0, ends=step, non_block=non_block)
        last.result()

    with pytest.raises(RankError, match=f"rank {rank} raised ValueError in first") as caught:
        outcome()
    assert isinstance(caught.value.__cause__, ValueError)


def test_it_is_the_outcome_of_calls_that_are_made_when_it_is_known(
    engine: Engine, go: Path
) -> None:
    step = engine.steps.send("first", ("x", 1), reply_ranks=0)
    with pytest.raises(RankError, match="the first half of x"):
        engine.steps.call("wait_for", (str(go), None, 0), reply_ranks=0, within=step)
    assert step.done
    with pytest.raises(RankError, match="the first half of x"):
        engine.steps.call("last", reply_ranks=0, ends=step)


def test_a_call_within_a_step_does_not_end_it(engine: Engine) -> None:
    step = engine.steps.send("first", ("x",), reply_ranks=0)
    assert engine.steps.call("rank", reply_ranks=1, within=step) == 1
    assert not step.done
    assert engine.steps.call("last", reply_ranks=0, ends=step) == "x"
    assert step.done


def test_a_call_that_nobody_replies_to_is_not_waited_for(engine: Engine) -> None:
    assert engine.steps.call("rank", reply_ranks=None) is None
    assert engine.steps.call("rank", reply_ranks=None, timeout=0, non_block=True) is None
    with pytest.raises(ConfigError, match="reply_ranks=None: must be a rank or 'all'"):
        engine.steps.send("rank", reply_ranks=None)  # type: ignore[arg-type]


def test_a_step_ends_with_its_last_calls_timeout(engine: Engine, go: Path) -> None:
    step = engine.steps.send("first", ("x",), reply_ranks=0)
    with pytest.raises(StepTimeout):
        engine.steps.call("last", (str(go),), reply_ranks=0, ends=step, timeout=0.1)
    assert step.done


def test_a_step_that_is_forgotten_fails_nobody(engine: Engine) -> None:
    step = engine.steps.send("first", ("x", 1), reply_ranks=0)
    engine.steps.forget(step)
    step = engine.steps.send("first", ("y",), reply_ranks=0)
    assert engine.steps.call("last", reply_ranks=0, ends=step) == "y"


def test_the_calls_of_a_step_are_gone_without_the_garbage_collector(
    engine: Engine, eventually: Any
) -> None:
    gc.disable()
    try:
        step = engine.steps.send("first", ("x",), reply_ranks=0)
        assert engine.steps.call("last", reply_ranks=0, ends=step) == "x"
        gone = weakref.ref(step)
        del step
        # At once, unless the supervisor looks at it right now.
        eventually(lambda: gone() is None, "the step is gone")
    finally:
        gc.enable()


def test_nobody_waits_when_the_run_ends_within_a_step(go: Path) -> None:
    with Engine(workers.Stepping, world_size=1) as engine:
        step = engine.steps.send("first", ("x",))
        future = engine.steps.call("last", (str(go),), ends=step, non_block=True)
        engine.shutdown(timeout=0)
        assert future.exception() is not None
