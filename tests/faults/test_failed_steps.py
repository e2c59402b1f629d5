"""A worker's method raises: which failures end the run, and which rank is to blame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.engine import blame
from mpspmd.errors import RankDied, RankError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def engine() -> Iterator[Engine]:
    config = RuntimeConfig.from_env(shutdown_timeout_s=2)
    with Engine(scenes.Actor, world_size=2, config=config) as made:
        yield made


@pytest.fixture
def patient_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late a rank of a busy machine says what broke a collective."""
    monkeypatch.setattr(blame, "SETTLE_COLLECTIVE_S", 30.0)


def test_a_failed_step_ends_the_run_and_a_failed_call_does_not(
    engine: Engine, eventually: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    future = engine.collective_rpc("fail_on", args=(1, str(go)), non_block=True)

    def is_done() -> bool:
        rank = engine.stats().ranks[0]
        return (rank.step, rank.phase) == (1, "waiting")

    eventually(is_done, "rank 0 is done")
    go.touch()
    with pytest.raises(RankError, match="Ranks that succeeded: 0") as call:
        future.result()
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
    engine: Engine, eventually: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    assert engine.execute_model(1, str(go)) is None
    go.touch()
    eventually(lambda: engine.failure, "the failure is noticed")
    with pytest.raises(RankError, match="rank 1 raised ValueError in execute_model"):
        engine.execute_model(1)


@pytest.mark.usefixtures("patient_blame")
def test_a_rank_whose_collective_broke_is_not_blamed(engine: Engine) -> None:
    with pytest.raises(RankDied, match=r"rank 1 .* died in reduce_without \(step 1\)") as caught:
        engine.collective_rpc("reduce_without", args=(1, "die"))
    assert caught.value.rank == 1


@pytest.mark.usefixtures("patient_blame")
def test_the_exception_that_broke_a_collective_is_the_one_reported(engine: Engine) -> None:
    with pytest.raises(RankError, match="the cause") as caught:
        engine.collective_rpc("reduce_without", args=(1, "raise"))
    assert (caught.value.rank, caught.value.exception) == (1, "ValueError")
