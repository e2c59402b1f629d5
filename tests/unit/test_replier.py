"""Workers whose replies are finished and sent by a thread of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import workers

from mpspmd import Engine
from mpspmd.errors import MpSpmdError, RankError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def deferring() -> Iterator[Engine]:
    with Engine(workers.Deferring, world_size=2) as engine:
        yield engine


def test_replies_keep_the_order_of_the_requests(deferring: Engine) -> None:
    values = [0.1 if i % 5 == 0 else i for i in range(30)]
    futures = [deferring.collective_rpc("echo", (value,), non_block=True) for value in values]
    for value, future in zip(values, futures, strict=True):
        assert future.result() == [(value, True)] * 2


def test_the_rank_takes_the_next_request_while_a_reply_is_being_finished(
    deferring: Engine, go: Path
) -> None:
    """It makes the file that the reply waits for."""
    slow = deferring.collective_rpc("echo", args=(go,), non_block=True)
    next_one = deferring.collective_rpc("touch", args=(str(go),), non_block=True)
    assert slow.result() == [(go, True)] * 2
    assert next_one.result() == [(None, True)] * 2


def test_an_exception_keeps_its_place_among_the_replies(deferring: Engine) -> None:
    before = deferring.call("echo", (0.2,), reply_ranks=1, non_block=True)
    failed = deferring.collective_rpc("fail_on", args=(1, "in between"), non_block=True)
    after = deferring.collective_rpc("echo", args=("after",), non_block=True)
    assert isinstance(failed.exception(), RankError)
    assert before.done()
    assert before.result() == (0.2, True)
    assert after.result() == [("after", True)] * 2


def test_a_result_that_cannot_be_finished_is_an_error(deferring: Engine) -> None:
    with pytest.raises(RankError, match="can't be finished") as caught:
        deferring.collective_rpc("echo", args=("unfinishable",))
    assert isinstance(caught.value.__cause__, ValueError)
    assert deferring.collective_rpc("echo", args=(1,)) == [(1, True)] * 2


def test_a_result_that_cannot_be_sent_is_an_error_whatever_the_reason(deferring: Engine) -> None:
    with pytest.raises(RankError, match="can't be printed"):
        deferring.collective_rpc("unsayable", timeout=20)
    assert deferring.collective_rpc("echo", args=(1,), timeout=20) == [(1, True)] * 2


def test_only_ranks_that_reply_finish_anything(deferring: Engine) -> None:
    assert deferring.call("echo", ("unfinishable",), reply_ranks=None) is None
    assert deferring.call("echo", (2,), reply_ranks=1) == (2, True)


def test_an_error_that_has_no_words_does_not_end_the_reply_thread(deferring: Engine) -> None:
    with pytest.raises(RankError, match="Speechless"):
        deferring.collective_rpc("echo", args=("speechless",), timeout=20)
    assert deferring.collective_rpc("echo", args=(1,), timeout=20) == [(1, True)] * 2


def test_a_reply_thread_that_cannot_start_is_an_error_and_no_hang() -> None:
    with (
        pytest.raises(MpSpmdError, match="this reply thread can't start"),
        Engine(workers.Deferring, world_size=1, kwargs={"broken": True}) as engine,
    ):
        engine.collective_rpc("rank", timeout=20)


def test_replies_under_way_are_sent_before_the_ranks_leave() -> None:
    with Engine(workers.Deferring, world_size=1) as engine:
        future = engine.collective_rpc("echo", args=(0.3,), non_block=True)
        assert future.result() == [(0.3, True)]
