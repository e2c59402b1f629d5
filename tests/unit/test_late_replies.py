"""What the other ranks reply to a call that has failed: dropped, unless somebody has asked to keep it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mpspmd import Engine
from mpspmd.engine.call import NO_REPLY
from mpspmd.errors import RankError, StepTimeout

pytestmark = pytest.mark.timeout(60)


def fail_on_0(worker: Any, file: Path) -> int:
    """Rank 1 replies when the file is there."""
    import time

    if worker.rank() == 0:
        raise ValueError("rank 0 has had enough")
    while not file.exists():
        time.sleep(0.001)
    return 7


def test_a_failed_call_keeps_what_comes_late_if_told_to(engine: Engine, tmp_path: Path) -> None:
    engine.collective_rpc("rank")  # read whatever earlier tests have left
    file = tmp_path / "go"
    future = engine.steps.call(fail_on_0, (file,), non_block=True, keeps_late=True)
    with pytest.raises(RankError, match="rank 0 has had enough"):
        future.result()
    failed, missing = future.replies_so_far()
    assert isinstance(failed, RankError)
    assert missing is NO_REPLY
    late = engine.stats().late_replies
    file.touch()
    assert engine.collective_rpc("rank") == [0, 1]
    assert future.replies_so_far()[1] == 7
    assert engine.stats().late_replies == late + 1
    assert not engine._table.kept


def test_it_is_dropped_otherwise(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "go"
    future = engine.call(fail_on_0, (file,), non_block=True)
    with pytest.raises(RankError, match="rank 0 has had enough"):
        future.result()
    file.touch()
    assert engine.collective_rpc("rank") == [0, 1]
    assert future.replies_so_far()[1] is NO_REPLY


def test_late_values_and_exceptions_of_a_call_that_has_timed_out_are_kept(
    engine: Engine, tmp_path: Path
) -> None:
    def fail_late(worker: Any, file: Path) -> str:
        import time

        while not file.exists():
            time.sleep(0.001)
        if worker.rank() == 1:
            raise ValueError("too late")
        return "x" * 100_000

    file = tmp_path / "go"
    future = engine.steps.call(fail_late, (file,), non_block=True, keeps_late=True, timeout=0.1)
    with pytest.raises(StepTimeout):
        future.result()
    file.touch()
    assert engine.collective_rpc("rank") == [0, 1]
    value, error = future.replies_so_far()
    assert value == "x" * 100_000
    assert isinstance(error, RankError)
    assert "too late" in str(error)


def test_what_comes_while_a_callback_of_the_failed_call_runs_is_kept(
    engine: Engine, go: Path
) -> None:
    begun, told = threading.Event(), threading.Event()

    def wait(done: Any) -> None:
        begun.set()
        told.wait(15)

    future = engine.steps.call(
        "wait_for", (str(go), 7), non_block=True, keeps_late=True, timeout=0.1
    )
    future.add_done_callback(wait)
    assert begun.wait(10)
    go.touch()
    assert engine.collective_rpc("rank") == [0, 1]
    assert future.replies_so_far() == [7, 7]
    told.set()


def test_a_limited_number_of_failed_calls_is_kept(engine: Engine, tmp_path: Path) -> None:
    def fail_on_1(worker: Any) -> None:
        raise ValueError("every time")

    for _ in range(3):
        future = engine.steps.call(fail_on_1, non_block=True, keeps_late=True)
        with pytest.raises(RankError):
            future.result()
    kept = engine._table.kept
    for _ in range(100):
        future = engine.steps.call(fail_on_1, reply_ranks=0, non_block=True, keeps_late=True)
        with pytest.raises(RankError):
            future.result()
    assert 0 < len(kept) <= 64
    kept.clear()
