"""Who keeps a step waiting, and in what: whatever the rank does, the report says it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.engine import rank_stacks
from mpspmd.errors import StepTimeout
from mpspmd.report import StallReport

pytestmark = pytest.mark.timeout(120)

_WARN_S = 0.6


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    config = RuntimeConfig.from_env(stall_warn_s=_WARN_S, shutdown_timeout_s=2)
    with Engine(scenes.Actor, world_size=2, config=config) as made:
        made.collective_rpc("meet")
        yield made


@pytest.fixture(autouse=True)
def _stays_usable(engine: Engine) -> Iterator[None]:
    yield
    os.kill(engine.pids[1], signal.SIGCONT)
    assert engine.collective_rpc("echo", args=(1,), timeout=30) == [1, 1]


class Go:
    """A file that a rank waits for: until it begins with a one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"\0")

    def wait(self) -> None:
        self._write(b"\0")

    def let_go(self) -> None:
        self._write(b"\1")

    def _write(self, byte: bytes) -> None:
        with self.path.open("r+b") as file:  # a rank has mapped it
            file.write(byte)


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Go]:
    go = Go(tmp_path / "go")
    yield go
    go.let_go()


@pytest.fixture
def patient_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ranks that can answer when they are asked for their stacks, however late."""
    monkeypatch.setattr(rank_stacks, "_ANSWER_S", 20.0)


Reported = Callable[[str, Callable[[StallReport], None]], None]


@pytest.fixture
def reported(engine: Engine, go: Go) -> Reported:
    """Has rank 1 stall until a call times out, and checks the report. On a loaded machine the ranks may not
    have come so far in a short time: then a longer call follows."""

    def reported(how: str, check: Callable[[StallReport], None]) -> None:
        for timeout in (1.0, 4.0, 16.0):
            go.wait()
            with pytest.raises(StepTimeout) as caught:
                engine.collective_rpc("stall", args=(1, how, str(go.path)), timeout=timeout)
            go.let_go()
            os.kill(engine.pids[1], signal.SIGCONT)
            assert engine.collective_rpc("echo", args=(1,), timeout=30) == [1, 1]
            report = caught.value.report
            assert report is not None
            assert str(report) in str(caught.value)
            try:
                assert (report.method, report.suspects) == ("stall", (1,))
                assert "waiting for rank 1" in str(report)
                check(report)
            except AssertionError:
                if timeout == 16.0:
                    raise
            else:
                return

    return reported


@pytest.mark.usefixtures("patient_engine")
def test_a_rank_that_sleeps_is_named_with_its_stack(reported: Reported) -> None:
    def check(report: StallReport) -> None:
        other, rank = report.ranks
        assert other.progress.done
        assert (rank.progress.started, rank.progress.finished) == (True, False)
        assert (rank.progress.phase, rank.progress.method) == ("running", "stall")
        assert rank.cpu_s < 0.3
        assert "in stall_asleep" in rank.stacks
        assert "in stall_asleep" in str(report)

    reported("asleep", check)


@pytest.mark.usefixtures("patient_engine")
def test_a_rank_that_spins_in_python_is_named_with_its_stack_and_cpu_time(
    reported: Reported,
) -> None:
    def check(report: StallReport) -> None:
        rank = report.ranks[1]
        assert "in stall_in_python" in rank.stacks
        assert rank.cpu_s > 0

    reported("in_python", check)


def test_a_rank_that_keeps_the_interpreters_lock_in_c_is_named_with_its_stack(
    reported: Reported,
) -> None:
    def check(report: StallReport) -> None:
        rank = report.ranks[1]
        assert "in stall_in_c" in rank.stacks
        assert rank.cpu_s > 0

    reported("in_c", check)


def test_a_rank_that_is_stopped_is_named(reported: Reported) -> None:
    def check(report: StallReport) -> None:
        rank = report.ranks[1]
        assert rank.state == "stopped"
        assert "stopped" in rank.stacks

    reported("stopped", check)


@pytest.mark.usefixtures("patient_engine")
def test_a_rank_that_others_wait_for_in_a_collective_is_the_one_named(reported: Reported) -> None:
    def check(report: StallReport) -> None:
        waiting, rank = report.ranks
        assert waiting.in_collective
        assert not waiting.progress.finished
        assert "all_reduce" in waiting.stacks
        assert "in stall_before_a_collective" in rank.stacks

    reported("before_a_collective", check)


def test_a_rank_that_has_not_read_the_request_is_told_from_one_that_works_on_it(
    engine: Engine, go: Go, eventually: Callable[..., None]
) -> None:
    engine.call("stall", (1, "asleep", str(go.path)), reply_ranks=None)

    def places() -> list[tuple[str, str]]:
        return [(rank.phase, rank.method) for rank in engine.stats().ranks]

    eventually(
        lambda: places() == [("waiting", "stall"), ("running", "stall")], "only rank 1 stalls"
    )
    stalled = engine.stats().ranks[1].step
    for timeout in (0.5, 4.0, 16.0):  # rank 0 of a loaded machine may take longer
        with pytest.raises(StepTimeout) as caught:
            engine.collective_rpc("echo", args=(1,), timeout=timeout)
        report = caught.value.report
        assert report is not None
        other, rank = report.ranks
        if other.progress.done:
            break
    go.let_go()
    assert other.progress.done
    assert not rank.progress.read
    assert (rank.progress.method, rank.progress.step) == ("stall", stalled)
    assert rank.progress.unread_bytes > 0
    assert "not read" in str(rank)


@pytest.mark.usefixtures("patient_engine")
def test_a_slow_step_is_warned_of_at_doubling_intervals_and_goes_on(
    engine: Engine, go: Go, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    def warnings() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    future = engine.call("stall", (1, "asleep", str(go.path)), non_block=True)
    eventually(lambda: len(warnings()) >= 3, "three warnings")
    go.let_go()
    assert future.result(timeout=30) == [None, None]
    for number, warning in enumerate(warnings()):
        told = re.search(r"is not done after ([\d.]+) s", warning)
        assert told is not None
        # At 0.6, 1.2 and 2.4 s, or later; the text is rounded.
        assert float(told[1]) > 2**number * _WARN_S - 0.1
    assert "waiting for rank 1" in warning
    assert "in stall_asleep" in warning


def test_a_rank_whose_reply_nobody_has_read_yet_is_not_waited_for(
    engine: Engine, go: Go, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    future = engine.call("stall", (1, "asleep", str(go.path)), non_block=True)
    # Rank 0 of a loaded machine may not be done when the first warning comes.
    eventually(
        lambda: any("waiting for rank 1\n" in each.getMessage() for each in caplog.records),
        "a warning that names rank 1 alone",
    )
    go.let_go()
    assert future.result(timeout=30) == [None, None]


def test_a_slow_step_goes_on_when_no_thread_can_be_had_to_warn_of_it(
    engine: Engine, go: Go, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    refused = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    future = engine.call("stall", (1, "asleep", str(go.path)), non_block=True)
    eventually(refused.is_set, "a warning is due")
    go.let_go()
    assert future.result(timeout=30) == [None, None]


def test_a_step_in_time_is_not_warned_of(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        began = time.monotonic()
        assert engine.collective_rpc("sleep", args=(_WARN_S / 3,)) == [None, None]
        if time.monotonic() - began < _WARN_S:
            break
        caplog.clear()  # it was not in time
    assert not caplog.records
