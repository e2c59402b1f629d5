"""What Python has for futures works on an engine's: wait, as_completed and asyncio.wrap_future.

Each test has an engine of its own, on which no thread reads replies yet.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
import workers

from mpspmd import Engine, EngineClosed, RankDied, StepFuture, StepTimeout

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(workers.Calculator, world_size=2) as made:
        yield made


def late(engine: Engine, go: Path) -> StepFuture[str]:
    """Of a call that rank 1 ends when the file is there."""
    return engine.call("wait_for", (str(go), "late", 1), reply_ranks=1, non_block=True)


def early(engine: Engine) -> StepFuture[int]:
    """Of a call that rank 0 does at once, whatever rank 1 does."""
    return engine.call("rank", reply_ranks=0, non_block=True)


def test_wait_returns_when_the_first_is_done(engine: Engine, go: Path) -> None:
    slow, quick = late(engine, go), early(engine)
    done, not_done = concurrent.futures.wait([slow, quick], 10, FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    assert quick.result(timeout=0) == 0
    go.touch()
    assert concurrent.futures.wait([slow, quick], 10).done == {slow, quick}
    assert slow.result(timeout=0) == "late"


def test_wait_has_a_timeout_of_its_own(engine: Engine, go: Path) -> None:
    slow = late(engine, go)
    assert concurrent.futures.wait([slow], 0.05).not_done == {slow}
    go.touch()
    assert concurrent.futures.wait([slow], 10).done == {slow}


def test_wait_ends_at_a_calls_own_deadline(engine: Engine, go: Path) -> None:
    slow = engine.collective_rpc("wait_for", (str(go),), timeout=0.05, non_block=True)
    assert concurrent.futures.wait([slow], 10).done == {slow}
    assert isinstance(slow.exception(), StepTimeout)


def test_many_futures_complete_in_the_order_of_their_calls(engine: Engine) -> None:
    futures = [engine.call("echo", (i,), reply_ranks=0, non_block=True) for i in range(50)]
    results = [future.result() for future in concurrent.futures.as_completed(futures, timeout=10)]
    # Nobody has read a reply before: of futures that are done already, as_completed() keeps no order.
    assert results == list(range(50))


def test_as_completed_gives_futures_in_the_order_in_which_they_are_done(
    engine: Engine, go: Path
) -> None:
    slow, quick = late(engine, go), early(engine)
    done = concurrent.futures.as_completed([slow, quick], timeout=20)
    assert next(done) is quick
    go.touch()
    assert list(done) == [slow]


def test_one_wait_takes_futures_of_several_engines(engine: Engine) -> None:
    with Engine(workers.Calculator, world_size=1) as other:
        futures = [engine.execute_model(1, non_block=True), other.execute_model(2, non_block=True)]
        done, _ = concurrent.futures.wait(futures, timeout=10)
        assert {future.result(timeout=0) for future in done} == {(0, (1,)), (0, (2,))}


def test_many_threads_may_wait_for_the_same_futures(engine: Engine, go: Path) -> None:
    futures = [late(engine, go), *(early(engine) for _ in range(10))]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(concurrent.futures.wait, futures[::-1], 10) for _ in range(8)]
        go.touch()
        assert all(wait.result().done == set(futures) for wait in waits)


def test_asyncio_awaits_futures_in_a_running_loop(engine: Engine, go: Path) -> None:
    async def main() -> list[object]:
        slow, quick = asyncio.wrap_future(late(engine, go)), asyncio.wrap_future(early(engine))
        done, _ = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
        assert done == {quick}
        go.touch()
        return [await slow, await quick]

    assert asyncio.run(main()) == ["late", 0]


def test_a_rank_that_dies_ends_every_wait(engine: Engine, eventually: Any, go: Path) -> None:
    quick, slow = early(engine), late(engine, go)
    more = late(engine, go)
    assert quick.result() == 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waits = [
            pool.submit(concurrent.futures.wait, [quick, slow, more], 30, how).result
            for how in (FIRST_EXCEPTION, concurrent.futures.ALL_COMPLETED)
        ]
        ended = concurrent.futures.as_completed([quick, slow, more], timeout=30)
        assert next(ended) is quick
        line = engine._channel.status.line(1)
        eventually(lambda: line.snapshot()["method"] == "wait_for", "rank 1 is in the method")
        os.kill(engine.pids[1], signal.SIGKILL)
        assert set(ended) == {slow, more}
        assert slow in waits[0]().done
        assert waits[1]().done == {quick, slow, more}
    for future in (slow, more):
        with pytest.raises(RankDied, match=r"rank 1 .*wait_for.*SIGKILL"):
            future.result()
    with pytest.raises(BrokenExecutor):
        engine.execute_model(1)


def test_asyncio_is_told_that_a_rank_has_died(engine: Engine, go: Path) -> None:
    async def main() -> list[object]:
        futures = [asyncio.wrap_future(late(engine, go)), asyncio.wrap_future(early(engine))]
        assert await futures[1] == 0
        os.kill(engine.pids[1], signal.SIGKILL)
        return await asyncio.gather(*futures, return_exceptions=True)

    died, quick = asyncio.run(main())
    assert isinstance(died, RankDied)
    assert quick == 0


def test_an_engine_that_is_shut_down_ends_every_wait_as_a_pool_does(
    engine: Engine, go: Path
) -> None:
    slow = late(engine, go)
    threading.Timer(0.1, engine.shutdown).start()
    assert concurrent.futures.wait([slow], 30).done == {slow}
    go.touch()
    assert isinstance(slow.exception(), EngineClosed)
    with pytest.raises(BrokenExecutor):
        engine.execute_model(1)


@pytest.mark.parametrize("called_back", [False, True])
def test_a_wait_of_no_time_sees_what_is_done(engine: Engine, called_back: bool) -> None:
    futures = [early(engine) for _ in range(20)]
    for future in futures:
        if called_back:
            future.add_done_callback(lambda _: None)
        future.result()
        assert not future.running()
        assert concurrent.futures.wait([future], 0).done == {future}
    assert concurrent.futures.wait(futures, 0).done == set(futures)
    assert set(concurrent.futures.as_completed(futures, 10)) == set(futures)


def test_a_snapshot_says_what_the_future_says(engine: Engine, go: Path) -> None:
    """asyncio asks for it from Python 3.14 on."""
    slow = late(engine, go)
    assert slow._get_snapshot() == (False, False, None, None)
    go.touch()
    assert slow.result() == "late"
    assert slow._get_snapshot() == (True, False, "late", None)
    failed = engine.call("fail", ("no",), non_block=True)
    error = failed.exception()
    assert failed._get_snapshot() == (True, False, None, error)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_wait_keeps_nothing_alive_when_it_has_ended(
    engine: Engine, go: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    slow = late(engine, go)
    gone = weakref.ref(slow)
    gc.disable()
    try:
        with monkeypatch.context() as patch:
            if interrupted:
                patch.setattr(threading.Event, "wait", interrupt)
            with contextlib.suppress(KeyboardInterrupt):
                concurrent.futures.wait([slow], 0.01)
        del slow
        assert gone() is None
    finally:
        gc.enable()


def test_waits_that_poll_see_what_is_done_while_others_read(engine: Engine) -> None:
    futures = [early(engine) for _ in range(200)]
    left = set(futures)
    while left:
        left = concurrent.futures.wait(left, 0).not_done
    assert all(future.result(timeout=0) == 0 for future in futures)


def test_waits_that_begin_while_the_engine_is_shut_down_end() -> None:
    for _ in range(3):
        with Engine(workers.Calculator, world_size=1) as engine:
            engine.call("sleep", (0.2,), reply_ranks=None)
            futures = [early(engine) for _ in range(300)]
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                waits = [pool.submit(concurrent.futures.wait, futures, 30) for _ in range(2)]
                engine.shutdown(timeout=0)
                assert all(wait.result().done == set(futures) for wait in waits)


def test_no_thread_reads_as_long_as_nobody_needs_one(engine: Engine) -> None:
    futures = [early(engine) for _ in range(5)]
    assert [future.result() for future in futures] == [0] * 5
    assert concurrent.futures.wait(futures, 10).done == set(futures)
    assert list(concurrent.futures.as_completed(futures[:1])) == futures[:1]
    assert engine._reader._thread is None
