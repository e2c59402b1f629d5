"""StepFuture: the result of a call that goes on while its caller does something else."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import workers

from mpspmd import Engine, RuntimeConfig
from mpspmd.engine.call import Call
from mpspmd.errors import EngineClosed, RankError, StepTimeout

pytestmark = pytest.mark.timeout(120)


def test_a_future_gives_what_a_blocking_call_gives(engine: Engine) -> None:
    assert engine.collective_rpc("rank", non_block=True).result() == [0, 1]
    assert engine.call("rank", reply_ranks=1, non_block=True).result() == 1
    assert engine.execute_model(5, non_block=True).result() == (0, (5,))


def test_a_call_without_replies_has_no_future(engine: Engine) -> None:
    assert engine.call("rank", reply_ranks=None, non_block=True) is None


def test_done_is_false_before_the_reply_and_true_after_it_without_a_wait(
    engine: Engine, eventually: Any, go: Path
) -> None:
    future = engine.collective_rpc("wait_for", args=(str(go), "x"), non_block=True)
    assert not future.done()
    assert future.running()
    go.touch()
    eventually(future.done, "the future is done")
    assert future.result(timeout=0) == ["x", "x"]


def test_futures_may_be_asked_in_any_order_and_again(engine: Engine) -> None:
    futures = [engine.collective_rpc("echo", args=(i,), non_block=True) for i in range(20)]
    for i in (19, 0, 7, 7, *range(20)):
        assert futures[i].result() == [i, i]


def test_a_timeout_of_result_leaves_the_call_running(engine: Engine, go: Path) -> None:
    future = engine.collective_rpc("wait_for", args=(str(go), "x"), non_block=True)
    with pytest.raises(TimeoutError) as caught:
        future.result(timeout=0.05)
    go.touch()
    assert not isinstance(caught.value, StepTimeout)
    assert future.result() == ["x", "x"]


def test_the_calls_own_timeout_ends_it_for_good(engine: Engine, go: Path) -> None:
    engine.collective_rpc("rank")  # read whatever earlier tests have left
    late = engine.stats().late_replies
    future = engine.collective_rpc("wait_for", args=(str(go), "x"), non_block=True, timeout=0.05)
    for _ in range(2):
        with pytest.raises(StepTimeout):
            future.result(timeout=10)
    go.touch()
    assert future.done()
    assert engine.collective_rpc("echo", args=("own",)) == ["own", "own"]
    assert engine.stats().late_replies == late + 2
    with pytest.raises(StepTimeout):
        future.result()


def test_an_exception_is_raised_and_can_be_asked_for(engine: Engine) -> None:
    future = engine.collective_rpc("fail", args=("no luck",), non_block=True)
    assert isinstance(future.exception(), RankError)
    for _ in range(2):
        with pytest.raises(RankError, match="no luck"):
            future.result()


def test_a_future_is_done_as_soon_as_its_error_is_raised(engine: Engine) -> None:
    for _ in range(50):
        future = engine.collective_rpc("fail", args=("no luck",), non_block=True)
        with pytest.raises(RankError):
            future.result()
        assert future.done()


def test_a_request_on_its_way_cannot_be_cancelled(engine: Engine) -> None:
    future = engine.collective_rpc("sleep", args=(0.1, "x"), non_block=True)
    assert not future.cancel()
    assert future.result() == ["x", "x"]


def test_a_callback_is_called_although_nobody_asks_for_the_result(engine: Engine) -> None:
    called = threading.Event()
    future = engine.collective_rpc("sleep", args=(0.1, "x"), non_block=True)
    future.add_done_callback(lambda done: done.result() == ["x", "x"] and called.set())
    assert called.wait(10)


def test_a_callback_added_after_the_end_is_called_at_once(engine: Engine) -> None:
    future = engine.collective_rpc("rank", non_block=True)
    future.result()
    results: list[Any] = []
    future.add_done_callback(lambda done: results.append(done.result()))
    assert results == [[0, 1]]


def test_callbacks_are_called_at_the_deadline(engine: Engine, go: Path) -> None:
    called = threading.Event()
    future = engine.collective_rpc("wait_for", args=(str(go),), non_block=True, timeout=0.1)
    future.add_done_callback(lambda done: called.set())
    assert called.wait(10), "while the ranks still wait"
    assert isinstance(future.exception(), StepTimeout)


def test_nor_does_a_call_without_a_deadline_keep_them(
    engine: Engine, eventually: Any, go: Path
) -> None:
    called, all_called = threading.Event(), threading.Event()
    slow = engine.collective_rpc("wait_for", args=(str(go),), non_block=True)
    slow.add_done_callback(lambda done: all_called.set())
    eventually(lambda: engine._reader.leader, "the reader waits for this call")
    future = engine.collective_rpc("rank", non_block=True, timeout=0.1)
    future.add_done_callback(lambda done: called.set())
    assert called.wait(10)
    assert not all_called.is_set()
    assert isinstance(future.exception(), StepTimeout)


def test_done_is_true_once_the_deadline_has_passed(
    engine: Engine, eventually: Any, go: Path
) -> None:
    future = engine.collective_rpc("wait_for", args=(str(go), "x"), non_block=True, timeout=0.1)
    eventually(future.done, "the future is done")
    assert isinstance(future.exception(), StepTimeout)


def test_a_callback_may_call_the_engine(engine: Engine) -> None:
    results: list[Any] = []
    called = threading.Event()

    def call_again(done: Any) -> None:
        results.append(engine.collective_rpc("echo", args=("again",), timeout=10))
        called.set()

    engine.collective_rpc("sleep", args=(0.1,), non_block=True).add_done_callback(call_again)
    assert called.wait(15)
    assert results == [["again", "again"]]


def test_a_callback_of_a_failed_call_may_make_one_that_fails_too(engine: Engine) -> None:
    errors: list[BaseException] = []
    called = threading.Event()

    def call_again(done: Any) -> None:
        try:
            engine.collective_rpc("fail", args=("again",), timeout=25)
        except Exception as error:
            errors.append(error)
        called.set()

    engine.collective_rpc("fail", args=("once",), non_block=True).add_done_callback(call_again)
    assert called.wait(10)
    assert [error.message for error in errors if isinstance(error, RankError)] == ["again"]


def test_a_slow_callback_of_a_failed_call_keeps_no_other_call_from_failing(engine: Engine) -> None:
    begun, told = threading.Event(), threading.Event()
    ended: list[bool] = []

    def wait(done: Any) -> None:
        begun.set()
        ended.append(told.wait(15))

    engine.collective_rpc("fail", args=("once",), non_block=True).add_done_callback(wait)
    assert begun.wait(10)
    with pytest.raises(RankError, match="again"):
        engine.collective_rpc("fail", args=("again",))
    assert not ended
    told.set()


def test_hundreds_of_callbacks_that_call_the_engine_are_called(
    engine: Engine, eventually: Any
) -> None:
    """Many replies are read at once: a callback may read those that the next ones are for."""
    results: list[Any] = []

    def call_again(done: Any) -> None:
        try:
            results.append(engine.call("rank", timeout=20))
        except BaseException as error:
            results.append(error)

    futures = [engine.call("sleep", (0.001,), non_block=True) for _ in range(300)]
    for future in futures:
        future.add_done_callback(call_again)
    futures[-1].result()
    eventually(lambda: len(results) == len(futures), "all callbacks are called")
    assert results == [[0, 1]] * len(futures)


def test_callbacks_that_ask_other_futures_are_called_one_after_the_other(
    engine: Engine, eventually: Any
) -> None:
    futures = [engine.call("sleep", (0.001,), non_block=True) for _ in range(300)]
    depths: list[int] = []
    threads: set[str] = set()
    depth = 0

    def ask_next(i: int) -> None:
        nonlocal depth
        depth += 1
        futures[min(i + 1, len(futures) - 1)].result()
        depths.append(depth)
        threads.add(threading.current_thread().name)
        depth -= 1

    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: ask_next(i))
    futures[-1].result()
    eventually(lambda: len(depths) == len(futures), "all callbacks are called")
    assert depths == [1] * len(futures)
    assert threads == {"mpspmd-reader"}


def test_a_shutdown_waits_until_the_callbacks_are_called() -> None:
    called: list[int] = []

    def call_back(i: int) -> None:
        time.sleep(0.002)
        called.append(i)

    with Engine(workers.Calculator, world_size=1) as engine:
        futures = [engine.call("rank", non_block=True) for _ in range(100)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i: call_back(i))
        engine.call("rank")
    assert called == list(range(100))


def test_a_callback_that_waits_for_the_thread_that_shuts_down_does_not_keep_it(
    eventually: Any,
) -> None:
    ended, called = threading.Event(), threading.Event()
    has_ended: list[bool] = []

    def wait(_: Any) -> None:
        called.set()
        has_ended.append(ended.wait(20))

    with Engine(workers.Calculator, world_size=1) as engine:
        engine.call("rank", non_block=True).add_done_callback(wait)
        assert called.wait(10)
    ended.set()
    eventually(lambda: has_ended, "the callback has returned")
    assert has_ended == [True], "the shutdown ended first"


def test_a_callback_that_is_added_while_the_call_ends_is_called(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = engine.call("rank", non_block=True)
    called = threading.Event()
    start_reader = engine._reader.start_reader

    def start_and_end() -> None:
        start_reader()
        future.result()

    monkeypatch.setattr(engine._reader, "start_reader", start_and_end)
    future.add_done_callback(lambda _: called.set())
    assert called.wait(10)


def test_a_callback_that_raises_harms_no_other_call(engine: Engine) -> None:
    called = threading.Event()

    def fail(done: Any) -> None:
        called.set()
        raise RuntimeError("the callback's own trouble")

    engine.collective_rpc("sleep", args=(0.1,), non_block=True).add_done_callback(fail)
    assert called.wait(10)
    assert engine.collective_rpc("rank") == [0, 1]


def test_callbacks_are_called_after_a_request_that_found_no_space(engine: Engine, go: Path) -> None:
    engine._reader.start_reader()
    for number in range(3):
        file = go.with_name(f"{number}")
        engine.call("wait_for", (str(file),), reply_ranks=None)
        # The reader waits for this request's replies, until the moment at which the sender gives up.
        with pytest.raises(StepTimeout, match="no space"):
            engine.collective_rpc("size", args=(bytes(16 << 20),), timeout=0.1)
        file.touch()
    called = threading.Event()
    engine.collective_rpc("rank", non_block=True).add_done_callback(lambda done: called.set())
    assert called.wait(10)


def test_callbacks_and_callers_in_many_threads_lose_nothing(
    engine: Engine, eventually: Any
) -> None:
    answers: list[int] = []

    def ask(thread: int) -> None:
        for i in range(40):
            number = 1000 * thread + i
            future = engine.collective_rpc("echo", args=(number,), non_block=True)
            future.add_done_callback(lambda done: answers.append(done.result()[0]))
            assert engine.collective_rpc("echo", args=(-number,)) == [-number, -number]
            future.result()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    # A result may be had before the callback is called.
    eventually(lambda: len(answers) >= 160, "all callbacks are called")
    assert sorted(answers) == [1000 * thread + i for thread in range(4) for i in range(40)]


def test_two_threads_may_ask_for_the_same_result(engine: Engine, go: Path) -> None:
    future = engine.collective_rpc("wait_for", args=(str(go), "x"), non_block=True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(future.result)
        go.touch()
        assert future.result() == ["x", "x"]
        assert first.result() == ["x", "x"]


def test_futures_under_way_end_when_the_engine_is_shut_down(go: Path) -> None:
    engine = Engine(workers.Calculator, world_size=1)
    futures = [engine.collective_rpc("wait_for", args=(str(go),), non_block=True) for _ in range(3)]
    waiter = ThreadPoolExecutor(1).submit(futures[1].exception)
    engine.shutdown(timeout=0)
    for future in futures:
        assert future.done()
        assert isinstance(future.exception(), EngineClosed)
    assert isinstance(waiter.result(10), EngineClosed)


@pytest.mark.parametrize("non_block", [False, True])
def test_a_reply_goes_with_its_last_user_and_waits_for_no_garbage_collection(
    engine: Engine, eventually: Any, non_block: bool
) -> None:
    gc.disable()
    try:
        outcome = engine.collective_rpc("echo", args=({1, 2},), non_block=non_block)
        if non_block:
            outcome = outcome.result()
        gone = weakref.ref(outcome[0])
        assert gone() == {1, 2}
        del outcome
        # At once, unless another test has started the engine's reader: that looks up from its work first.
        eventually(lambda: gone() is None, "the reply is gone")
    finally:
        gc.enable()


@pytest.mark.parametrize("non_block", [False, True])
def test_nor_does_an_error_keep_its_call(engine: Engine, eventually: Any, non_block: bool) -> None:
    gc.disable()
    try:
        try:
            engine.collective_rpc("fail", args=("no",), non_block=non_block).result()
        except RankError as error:
            gone = weakref.ref(error)
        eventually(lambda: gone() is None, "the error is gone")
    finally:
        gc.enable()


@pytest.mark.parametrize("done", [False, True])
def test_what_comes_of_a_sent_call_is_asked_for_later(engine: Engine, done: bool) -> None:
    calls = [engine.steps.send("echo", (i,), reply_ranks=1) for i in range(5)]
    if done:
        engine.call("rank")
        assert all(call.done for call in calls)
    assert engine.steps.outcome(calls[3]) == 3
    futures = {i: engine.steps.future(calls[i]) for i in (4, 0, 2)}
    assert {i: future.result() for i, future in futures.items()} == {4: 4, 0: 0, 2: 2}
    assert all(future.done() for future in futures.values())
    assert engine.steps.outcome(calls[1]) == engine.steps.outcome(calls[1]) == 1


@pytest.mark.parametrize("done", [False, True])
def test_a_sent_call_that_fails_raises_where_it_is_asked_for(
    engine: Engine, done: bool, go: Path
) -> None:
    calls = [engine.steps.send("fail", ("no",)) for _ in range(2)]
    if done:
        engine.call("rank")
    with pytest.raises(RankError):
        engine.steps.outcome(calls[0])
    assert isinstance(engine.steps.future(calls[1]).exception(), RankError)
    late = engine.steps.send("wait_for", (str(go), "x"), timeout=0.02)
    with pytest.raises(StepTimeout):
        engine.steps.outcome(late)
    with pytest.raises(StepTimeout):
        engine.steps.future(late).result()
    go.touch()
    assert engine.collective_rpc("rank") == [0, 1]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads give each other the interpreter's lock as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("quick_switches")
def test_a_future_that_comes_while_the_reply_comes_is_told_once(
    engine: Engine, eventually: Any
) -> None:
    told: list[int] = []
    wrong: list[Exception] = []

    def read(call: Call) -> None:
        try:
            engine.steps.outcome(call)
        except Exception as error:
            wrong.append(error)

    for i in range(2000):
        call = engine.steps.send("echo", (i,), reply_ranks=0)
        reader = threading.Thread(target=read, args=(call,))
        reader.start()
        future = engine.steps.future(call)
        future.add_done_callback(lambda each: told.append(each.result()))
        reader.join()
        assert future.result(timeout=10) == i
    assert wrong == []
    # A result may be had before the callback is called.
    eventually(lambda: len(told) >= 2000, "all callbacks are called")
    assert sorted(told) == list(range(2000))


def test_a_callback_reads_replies_while_its_request_waits_for_space() -> None:
    """Its thread leads, so that nobody else reads; and ranks don't free space before they can reply."""
    outcome: list[Any] = []
    called = threading.Event()

    def call_back(_: Any) -> None:
        try:
            outcome.append(engine.call("size", (bytes(1 << 18),), timeout=10))
        finally:
            called.set()

    config = RuntimeConfig(request_ring_bytes=1 << 16, reply_ring_bytes=1 << 16)
    with Engine(workers.Calculator, world_size=1, config=config) as engine:
        first = engine.call("sleep", (0.2,), non_block=True)
        for _ in range(8):
            engine.steps.send("echo", (bytes(5000),))
        for _ in range(3):
            engine.steps.send("sleep", (0.0, bytes(9000)))
        first.add_done_callback(call_back)
        assert called.wait(60)
        assert outcome == [[1 << 18]]


def test_a_callback_reads_replies_while_another_threads_request_waits_for_space(
    eventually: Any, go: Path
) -> None:
    """That thread waits for ranks, which wait until the callback's thread reads their replies."""
    outcome: list[Any] = []
    called = threading.Event()

    def call_back(_: Any) -> None:
        try:
            outcome.append(engine.call("rank", timeout=10))
        finally:
            called.set()

    config = RuntimeConfig(request_ring_bytes=1 << 16, reply_ring_bytes=1 << 16)
    with Engine(workers.Calculator, world_size=1, config=config) as engine:
        first = engine.call("wait_for", (str(go),), non_block=True)
        first.add_done_callback(call_back)
        for _ in range(10):
            engine.steps.send(lambda worker: bytes(9000))
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(engine.call, "size", (bytes(1 << 18),))
            eventually(lambda: engine._reader.sender_waits, "the other thread waits for space")
            go.touch()
            assert called.wait(60)
            assert outcome == [[0]]
            assert other.result() == [1 << 18]


def test_a_callback_may_call_the_engine_although_a_thread_has_read_the_reply_while_it_sent() -> (
    None
):
    outcome: list[Any] = []
    called = threading.Event()

    def call_back(_: Any) -> None:
        outcome.append((threading.current_thread().name, engine.call("rank", timeout=10)))
        called.set()

    config = RuntimeConfig(request_ring_bytes=1 << 16, reply_ring_bytes=1 << 16)
    with Engine(workers.Calculator, world_size=1, config=config) as engine:
        with engine._reader.leading() as leads:  # so that no other thread reads
            assert leads
            first = engine.call("sleep", (0.2,), non_block=True)
            first.add_done_callback(call_back)
            # So large that it waits for space, also when the rank reads at once.
            other = engine.call("size", (bytes(1 << 24),), non_block=True)
            assert first.done()
        assert other.result() == [1 << 24]
        assert called.wait(20)
    assert outcome == [("mpspmd-reader", [0])]
