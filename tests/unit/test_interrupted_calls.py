"""Calls that a signal's handler leaves by an exception, as Ctrl-C does, in a program that goes on."""

from __future__ import annotations

import concurrent.futures
import gc
import signal
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import workers
from interrupting import Came, interrupted_at

from mpspmd import Engine
from mpspmd.errors import DecodeError, RankError, StepTimeout

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("has_reader", [False, True])
@pytest.mark.parametrize(("argument", "places"), [("plain", 5), ({"not plain"}, 20)])
def test_they_harm_no_other_thread_wherever_that_happens(
    argument: Collection[str], places: int, has_reader: bool
) -> None:
    number = 0
    with Engine(workers.Calculator, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        if has_reader:
            engine._reader.start_reader()
        while interrupted_at(lambda: engine.call("size", (argument,)), number):
            other = pool.submit(engine.collective_rpc, "rank", timeout=10)
            assert other.result() == [0], number
            number += 1
        assert number > places
        assert engine.call("size", (argument,)) == [len(argument)]


def test_they_take_no_error_from_another_thread_wherever_that_happens() -> None:
    """The interrupted thread reads what a rank has raised in a call of another thread."""
    number, interrupted = 0, True
    with Engine(workers.Calculator, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        while interrupted or number < 60:  # what is raised while an error is decoded is held back
            other = engine.call("fail", ("x",), non_block=True)
            own = engine.steps.send("rank")
            interrupted = interrupted_at(lambda own=own: engine.steps.outcome(own), number)
            error = pool.submit(other.exception, 10).result()
            assert isinstance(error, RankError | DecodeError), number
            number += 1


@pytest.mark.parametrize("waits", [True, False])
def test_they_keep_nobody_from_being_told_wherever_that_happens(
    waits: bool, eventually: Any
) -> None:
    """The interrupted thread reads the reply of a call for whose end another thread or a callback waits."""
    number, interrupted = 0, True
    with Engine(workers.Calculator, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        engine._reader.start_reader()
        while interrupted or number < 20:
            told = threading.Event()
            eventually(lambda: not engine._reader.leader, "the reader thread is idle")
            with engine._reader.leading() as leads:  # the reader thread follows
                assert leads
                other = engine.call("rank", non_block=True)
                if waits:
                    wait = pool.submit(concurrent.futures.wait, [other], 20)
                    wait.add_done_callback(
                        lambda wait, told=told: wait.result().done and told.set()
                    )
                    eventually(lambda other=other: other._waiters, "the thread waits")
                else:
                    other.add_done_callback(lambda _, told=told: told.set())
                own = engine.steps.send("rank")
                interrupted = interrupted_at(lambda own=own: engine.steps.outcome(own), number)
            assert told.wait(10), number
            number += 1


def test_who_is_interrupted_while_adding_a_callback_keeps_nobody_from_being_told(
    eventually: Any,
) -> None:
    def is_interrupted(number: int) -> bool:
        called: list[str] = []
        eventually(lambda: not engine._reader.leader, "the reader thread is idle")
        with engine._reader.leading() as leads:  # so that the call isn't done yet
            assert leads
            future = engine.call("rank", non_block=True)
            future.add_done_callback(lambda _: called.append("first"))
            interrupted = interrupted_at(
                lambda: future.add_done_callback(lambda _: called.append("second")), number
            )
            expected = ["first", "second"][: len(future._done_callbacks)]
        other = engine.call("rank", non_block=True)
        other.add_done_callback(lambda _: called.append("third"))
        eventually(lambda: sorted(called) == [*expected, "third"], f"{expected}, {number}")
        return interrupted

    with Engine(workers.Calculator, world_size=1) as engine:
        engine._reader.start_reader()
        number = 0
        while is_interrupted(number):
            number += 1
    assert number > 5


@pytest.mark.parametrize("waits", [True, False])
def test_they_keep_no_step_from_ending_wherever_that_happens(waits: bool, eventually: Any) -> None:
    """The interrupted thread reads the reply that ends a step of two calls."""
    number, interrupted = 0, True
    with Engine(workers.Stepping, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        engine._reader.start_reader()
        while interrupted or number < 20:
            eventually(lambda: not engine._reader.leader, "the reader thread is idle")
            told = threading.Event()
            with engine._reader.leading() as leads:
                assert leads
                step = engine.steps.send("first", (1,))
                future = engine.steps.future(step)
                if waits:
                    future.add_done_callback(lambda _, told=told: told.set())
                last = engine._sending.send("last", (), {}, "all", None, step)
                engine._reader.link(last, step)
                interrupted = interrupted_at(lambda last=last: engine.steps.outcome(last), number)
            assert pool.submit(future.exception, 10).result() is None, number
            assert not waits or told.wait(10), number
            number += 1


@pytest.mark.parametrize("fails", [True, False])
def test_a_handler_may_use_the_engine_while_its_thread_begins_to_wait(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """concurrent.futures.wait() holds the locks of all its futures then."""
    outcomes: list[BaseException | list[int]] = []

    def use_engine(*_: object) -> None:
        try:
            outcomes.append(engine.call("fail" if fails else "rank", timeout=20))
        except RankError as error:
            outcomes.append(error)

    class Waiter(concurrent.futures._base._AllCompletedWaiter):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(concurrent.futures._base, "_AllCompletedWaiter", Waiter)
    before = signal.signal(signal.SIGALRM, use_engine)
    try:
        with Engine(workers.Calculator, world_size=1) as engine:
            for has_reader in (False, True):
                if has_reader:
                    engine._reader.start_reader()
                future = engine.call("fail" if fails else "rank", non_block=True)
                assert concurrent.futures.wait([future], 20).done == {future}
    finally:
        signal.signal(signal.SIGALRM, before)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == ([RankError] * 2 if fails else [list] * 2)


def test_a_handler_may_add_a_callback_while_its_thread_waits(eventually: Any) -> None:
    def add(*_: object) -> None:
        nonlocal added
        if not added:
            added = True
            future.add_done_callback(called.append)

    before = signal.signal(signal.SIGALRM, add)
    try:
        with Engine(workers.Calculator, world_size=1) as engine:
            for number in range(200):
                called: list[Any] = []
                added = False
                future = engine.call("sleep", (0.003,), non_block=True)
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 0.00001)
                while not added:
                    concurrent.futures.wait([future], 0)
                future.result()
                eventually(lambda: called, "the callback is called")  # noqa: B023
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_timeout_error_of_a_signals_handler_is_not_taken_for_the_calls(
    leads: bool, timeout: float | None, go: Path
) -> None:
    def handle(*_: object) -> None:
        raise TimeoutError("the handler's")

    def interrupted(call: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        call.result()

    with Engine(workers.Calculator, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        before = signal.signal(signal.SIGALRM, handle)
        try:
            call = engine.call("wait_for", (str(go), "value"), timeout=timeout, non_block=True)
            other = None if leads else pool.submit(engine.call, "rank")
            while other is not None and not engine._reader.leader:
                time.sleep(0.001)
            with pytest.raises(TimeoutError, match="the handler's"):
                interrupted(call)
            go.touch()
            assert call.result() == ["value"]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_threads_with_deadlines_get_their_own_replies_while_signals_interrupt_the_main_thread() -> (
    None
):
    """Replies come after their deadline, threads take turns in reading, the garbage collector runs often,
    and a handler raises in the main thread, wherever it is."""
    interrupted, done = 0, 0

    def handle(*_: object) -> None:
        nonlocal armed
        if armed:
            # Once: a second Came might end this test, or what Python does after a destructor.
            armed = False
            raise Came

    def ask(thread: int) -> int:
        asked = 0
        while time.monotonic() < end:
            asked += 1
            number = thread << 32 | asked
            value = number if asked % 3 else {number}
            timeout = 0.001 if asked % 5 == 0 else None
            try:
                if asked % 7 == 0:
                    future = engine.call("echo", (value,), timeout=timeout, non_block=True)
                    assert future.result() == [value, value]
                else:
                    assert engine.call("echo", (value,), timeout=timeout) == [value, value]
            except (StepTimeout, DecodeError):
                pass  # DecodeError: the main thread read this reply when its handler raised
        return asked

    armed = False
    thresholds = gc.get_threshold()
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with Engine(workers.Calculator, world_size=2) as engine, ThreadPoolExecutor(3) as pool:
            end = time.monotonic() + 3.0
            gc.set_threshold(20, 2, 2)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
            threads = [pool.submit(ask, thread) for thread in range(3)]
            while time.monotonic() < end:
                value: Any = done if done % 2 else [done]
                try:
                    armed = True
                    reply = engine.call("echo", (value,))
                    armed = False
                    assert reply == [value, value]
                    done += 1
                except (Came, DecodeError):
                    armed = False
                    interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            counts = [thread.result() for thread in threads]
            assert min(counts) > 10
            assert engine.call("echo", ("last",), timeout=20) == ["last", "last"]
            assert engine._table.pending.keys() <= {engine._reader.steps}
            assert (engine._reader.leader, engine._reader.followers) == (0, [])
    finally:
        gc.set_threshold(*thresholds)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
    assert done > 10
