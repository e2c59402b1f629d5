"""An engine that is dropped without shutdown() ends its ranks, and says so."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import workers

from mpspmd import Engine
from mpspmd.errors import RankDied, RankError

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def ended(eventually: Any) -> Iterator[list[int]]:
    """The pids of ranks that must be gone after the test, while this process still runs."""
    pids: list[int] = []
    before = _supervisors()  # other tests share an engine
    yield pids
    assert pids
    eventually(lambda: not any(map(psutil.pid_exists, pids)), "the ranks are gone")
    eventually(lambda: _supervisors() <= before, "the supervisor's thread is gone")


def _supervisors() -> int:
    return sum(thread.name == "mpspmd-supervisor" for thread in threading.enumerate())


def test_its_ranks_are_ended_with_a_resource_warning(ended: list[int]) -> None:
    engine = Engine(workers.Calculator, world_size=2)
    assert engine.collective_rpc("rank") == [0, 1]
    ended += engine.pids
    words = f"dropped without shutdown.*pids {engine.pids[0]}, {engine.pids[1]}"
    with pytest.warns(ResourceWarning, match=words):
        del engine


def test_its_workers_are_shut_down(tmp_path: Any, ended: list[int], eventually: Any) -> None:
    engine = Engine(workers.Tidy, world_size=1, args=(str(tmp_path),))
    ended += engine.pids
    with pytest.warns(ResourceWarning):
        del engine
    eventually(lambda: (tmp_path / "0").exists(), "the worker has shut down")


def test_an_engine_that_was_shut_down_is_dropped_silently(
    recwarn: pytest.WarningsRecorder, ended: list[int]
) -> None:
    gc.collect()
    recwarn.clear()  # of what earlier tests have left
    with Engine(workers.Calculator, world_size=1) as engine:
        ended += engine.pids
    del engine
    assert not recwarn.list


def test_one_with_a_call_that_is_never_answered_is_ended(ended: list[int]) -> None:
    engine = Engine(workers.Calculator, world_size=1)
    ended += engine.pids
    engine.call("sleep", (1.0,), non_block=True)
    with pytest.warns(ResourceWarning):
        del engine


def test_one_that_has_failed_is_ended(ended: list[int]) -> None:
    engine = Engine(workers.Calculator, world_size=2)
    ended += engine.pids
    with contextlib.suppress(RankError):
        engine.collective_rpc("fail_on", args=(1, "no luck"))
    os.kill(engine.pids[0], signal.SIGKILL)
    with contextlib.suppress(RankDied):
        engine.collective_rpc("sleep", args=(60,))

    def drop() -> None:
        nonlocal engine
        del engine
        gc.collect()  # the exceptions' tracebacks are in cycles with what they refer to

    with pytest.warns(ResourceWarning):
        drop()


def test_a_future_keeps_its_engine(ended: list[int]) -> None:
    engine = Engine(workers.Calculator, world_size=1)
    ended += engine.pids
    future = engine.execute_model("x", non_block=True)
    later = engine.call("sleep", (0.2, "y"), reply_ranks=0, non_block=True)
    del engine
    assert future.result(30) == (0, ("x",))
    assert later.result(30) == "y"
    with pytest.warns(ResourceWarning):
        del future, later


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # in the thread that calls back
def test_a_callback_is_called_though_nobody_has_the_future(ended: list[int]) -> None:
    called = threading.Event()
    engine = Engine(workers.Calculator, world_size=1)
    ended += engine.pids
    engine.call("sleep", (0.3,), non_block=True).add_done_callback(lambda done: called.set())
    del engine
    assert called.wait(30)


@pytest.mark.parametrize(
    "count", [10, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_many_leave_no_process_thread_or_descriptor(count: int, eventually: Any) -> None:
    supervisors = _supervisors()
    _make_and_drop(1)  # what the first one imports and opens may stay
    eventually(lambda: _supervisors() <= supervisors, "the first one's thread is gone")
    gc.collect()
    before = _owned()
    _make_and_drop(count)
    # Fewer, where what an earlier test has started ends now.
    eventually(
        lambda: all(now <= then for now, then in zip(_owned(), before, strict=True)),
        "no more threads, descriptors and processes than before",
    )


def _make_and_drop(count: int) -> None:
    for _ in range(count):
        engine = Engine(workers.Calculator, world_size=1)
        assert engine.collective_rpc("rank") == [0]
        with pytest.warns(ResourceWarning):
            del engine


def _owned() -> tuple[int, int, int]:
    gc.collect()
    return (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        len(psutil.Process().children(recursive=True)),
    )
