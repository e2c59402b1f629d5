"""A worker's method raises: which failures end the run, and which rank is to blame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.errors import RankDied, RankError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def engine() -> Iterator[Engine]:
    config = RuntimeConfig.from_env(shutdown_timeout_s=2)
    with Engine(scenes.Actor, world_size=2, config=config) as made:
        yield made


def test_a_failed_step_ends_the_run_and_a_failed_call_does_not(
    engine: Engine, eventually: Any
) -> None:
    with pytest.raises(RankError, match="Ranks that succeeded: 0") as call:
        engine.collective_rpc("fail_on", args=(1,))
    assert call.value.succeeded == (0,)
    assert engine.failure is None
    assert engine.collective_rpc("echo", args=(1,)) == [1, 1]
    pids = engine.pids
    with pytest.raises(RankError, match="rank 1 raised ValueError in execute_model"):
        engine.execute_model(1, reply_rank=1)
    with pytest.raises(RankError, match="rank 1 raised ValueError in execute_model"):
        engine.collective_rpc("echo", args=(1,))
    eventually(lambda: not any(map(psutil.pid_exists, pids)), "the ranks are gone")


def test_a_step_that_fails_on_a_rank_after_the_reply_ends_the_run(
    engine: Engine, eventually: Any
) -> None:
    assert engine.execute_model(1, 0.2) is None
    eventually(lambda: engine.failure, "the failure is noticed")
    with pytest.raises(RankError, match="rank 1 raised ValueError in execute_model"):
        engine.execute_model(1)


def test_a_rank_whose_collective_broke_is_not_blamed(engine: Engine) -> None:
    with pytest.raises(RankDied, match=r"rank 1 .* died in reduce_without \(step 1\)") as caught:
        engine.collective_rpc("reduce_without", args=(1, "die"))
    assert caught.value.rank == 1


def test_the_exception_that_broke_a_collective_is_the_one_reported(engine: Engine) -> None:
    with pytest.raises(RankError, match="the cause") as caught:
        engine.collective_rpc("reduce_without", args=(1, "raise"))
    assert (caught.value.rank, caught.value.exception) == (1, "ValueError")
