"""A rank dies: which, how and in what it died is reported at once, and the other ranks end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.control.plane import EnginePlane
from mpspmd.errors import EngineClosed, RankDied
from mpspmd.machine.cgroup import memory_left

pytestmark = pytest.mark.timeout(120)


class Watched:
    """An engine, and how often it has called a failure callback."""

    def __init__(self) -> None:
        self.engine = Engine(
            scenes.Actor, world_size=2, config=RuntimeConfig.from_env(shutdown_timeout_s=5)
        )
        self.failures = 0
        self.failed = threading.Event()
        self.engine.on_failure(self._count)

    def _count(self, cause: BaseException) -> None:
        assert cause is self.engine.failure
        self.failures += 1
        self.failed.set()


@contextlib.contextmanager
def watching() -> Iterator[Watched]:
    """An engine that will fail once."""
    made = Watched()
    yield made
    pids = made.engine.pids
    made.engine.shutdown()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert made.failures == 1


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching() as made:
        yield made


def test_a_rank_killed_while_idle_is_named(watched: Watched) -> None:
    engine = watched.engine
    assert engine.collective_rpc("echo", args=(1,)) == [1, 1]
    os.kill(engine.pids[1], signal.SIGKILL)
    assert watched.failed.wait(20)
    with pytest.raises(RankDied, match="SIGKILL") as caught:
        engine.collective_rpc("echo", args=(1,))
    assert (caught.value.rank, caught.value.pid) == (1, engine.pids[1])
    assert "before its first step" not in str(caught.value)


def test_a_rank_killed_while_running_is_named_at_once_with_its_method_and_step(
    watched: Watched,
) -> None:
    engine = watched.engine
    engine.collective_rpc("echo", args=(1,))
    killed: list[float] = []

    def kill() -> None:
        while engine.stats().ranks[0].method != "sleep":
            time.sleep(0.01)
        time.sleep(0.1)  # this thread's caller waits by now
        killed.append(time.monotonic())
        os.kill(engine.pids[0], signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(RankDied) as caught:
        engine.collective_rpc("sleep", args=(600,))
    assert time.monotonic() - killed[0] < 5.0, "0.1 s are promised"
    error = caught.value
    assert (error.rank, error.pid, error.method, error.step) == (0, engine.pids[0], "sleep", 2)
    for fact in ("rank 0", str(error.pid), "sleep", "step 2", "killed by SIGKILL"):
        assert fact in str(error)


def test_a_death_is_reported_with_its_signal_before_its_memory_is_freed() -> None:
    """2 GiB take the kernel some 200 ms to free; only then can the process be waited for.

    One of three deaths is enough: on a busy machine the thread that is told of one may run later.
    """
    free, left = psutil.virtual_memory().available, memory_left()
    if min(free, free if left is None else left) < 6 << 30:
        pytest.skip("less than 6 GiB of memory are free")
    assert any(_is_reported_before_its_memory_is_freed() for _ in range(3))


def _is_reported_before_its_memory_is_freed() -> bool:
    with watching() as watched:
        engine = watched.engine
        engine.call("fill_memory", (1, 2 << 30))
        threading.Timer(0.3, os.kill, (engine.pids[1], signal.SIGKILL)).start()
        with pytest.raises(RankDied, match=r"rank 1 .*killed by SIGKILL"):
            engine.collective_rpc("sleep", args=(600,))
        return psutil.pid_exists(engine.pids[1])  # it isn't reaped yet


def test_later_calls_raise_the_first_cause_with_its_exit_code_each_time(watched: Watched) -> None:
    engine = watched.engine
    with pytest.raises(RankDied, match=r"in end \(step 1\): exit code 3") as first:
        engine.collective_rpc("end", args=(1, 3))
    assert first.value.rank == 1
    for _ in range(2):
        with pytest.raises(RankDied) as later:
            engine.collective_rpc("echo", args=(1,))
        assert str(later.value) == str(first.value)
    engine.shutdown()
    with pytest.raises(RankDied):
        engine.collective_rpc("echo", args=(1,))
    assert isinstance(engine.failure, RankDied)


def test_a_rank_whose_engine_lives_leaves_sigterm_to_it(watched: Watched) -> None:
    engine = watched.engine
    for _ in range(2):
        for pid in engine.pids:
            os.kill(pid, signal.SIGTERM)
        assert engine.collective_rpc("echo", args=(1,)) == [1, 1]
    os.kill(engine.pids[0], signal.SIGKILL)
    assert watched.failed.wait(20)


@pytest.mark.parametrize("method", [None, "sleep"])
def test_only_the_rank_that_died_is_reported_and_the_other_ends_without_a_shutdown(
    watched: Watched, caplog: pytest.LogCaptureFixture, eventually: Any, method: str | None
) -> None:
    if method:
        watched.engine.call(method, (600,), reply_ranks=None)
    pids = watched.engine.pids
    os.kill(pids[1], signal.SIGKILL)
    assert watched.failed.wait(20)
    eventually(lambda: not any(map(psutil.pid_exists, pids)), "the other rank ends, too")
    time.sleep(0.2)
    reports = [record for record in caplog.records if "died" in record.getMessage()]
    assert len(reports) == 1
    assert "rank 1" in reports[0].getMessage()


class Held:
    """Keeps the supervisor from noticing anything until it is let go, as a busy machine may."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self._holds = threading.Event()
        self._poll = EnginePlane.poll
        monkeypatch.setattr(EnginePlane, "poll", lambda *args: self._poll_later(*args))
        engine._ending._files.plane.wake()
        assert self._holds.wait(20)

    def _poll_later(self, plane: EnginePlane, timeout_s: float) -> Any:
        self._holds.set()
        assert self.let_go.wait(20)
        return self._poll(plane, timeout_s)


def end(pid: int, number: signal.Signals) -> None:
    """Returns when it has ended."""
    os.kill(pid, number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_death_that_was_not_noticed_before_the_shutdown_is_still_a_failure(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Held(watched.engine, monkeypatch)
    end(watched.engine.pids[1], signal.SIGKILL)
    threading.Timer(0.2, supervisor.let_go.set).start()
    watched.engine.shutdown()
    failure = watched.engine.failure
    assert isinstance(failure, RankDied)
    assert (failure.rank, failure.pid) == (1, watched.engine.pids[1])
    assert "killed by SIGKILL" in str(failure)


def test_a_rank_that_was_ended_because_another_had_died_is_not_to_blame(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    engine = watched.engine
    engine.call("sleep", (600,), reply_ranks=None)
    eventually(
        lambda: [rank.method for rank in engine.stats().ranks] == ["sleep"] * 2, "both sleep"
    )
    supervisor = Held(engine, monkeypatch)
    end(engine.pids[1], signal.SIGKILL)
    # From then on a SIGTERM ends the other one.
    eventually(lambda: engine._channel.first_to_die == 1, "the rings are poisoned")
    end(engine.pids[0], signal.SIGTERM)
    supervisor.let_go.set()
    assert watched.failed.wait(20)
    failure = engine.failure
    assert isinstance(failure, RankDied)
    assert failure.rank == 1


def test_calls_of_all_threads_end_when_a_rank_dies(watched: Watched) -> None:
    engine = watched.engine
    errors: list[BaseException] = []

    def call_for_ever() -> None:
        try:
            scenes.call_for_ever(engine)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call_for_ever) for _ in range(4)]
    for thread in threads:
        thread.start()
    future = engine.collective_rpc("echo", args=(bytes(20 << 20),), non_block=True)
    os.kill(engine.pids[1], signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    assert [type(error) for error in errors] == [RankDied] * 4
    assert future.exception(timeout=20) is None or isinstance(future.exception(), RankDied)


def test_a_rank_that_dies_while_the_engine_waits_for_space_ends_the_wait(
    watched: Watched,
) -> None:
    engine = watched.engine
    engine.call("sleep", (600,), reply_ranks=None)
    threading.Timer(0.3, os.kill, (engine.pids[1], signal.SIGKILL)).start()
    with pytest.raises(RankDied):
        engine.collective_rpc("echo", args=(bytes(20 << 20),))


def test_failure_callbacks_are_called_though_one_raises_and_later_ones_at_once(
    watched: Watched,
) -> None:
    called = threading.Event()
    watched.engine.on_failure(lambda cause: called.set())
    watched.engine.on_failure(lambda cause: 1 / 0)
    os.kill(watched.engine.pids[0], signal.SIGKILL)
    assert called.wait(20)
    assert watched.failed.wait(20)
    calls: list[int] = []
    watched.engine.on_failure(lambda cause: calls.append(1))
    assert calls == [1]


def test_a_closed_engine_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    with Engine(scenes.Actor, world_size=2) as engine:
        pass
    with pytest.raises(EngineClosed):
        engine.collective_rpc("echo", args=(1,))
    assert "died" not in caplog.text
