"""Who keeps a step waiting, and in what: whatever the rank does, the report says it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.errors import StepTimeout
from mpspmd.report import RankReport, StallReport

pytestmark = pytest.mark.timeout(60)

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


def _report(engine: Engine, how: str, timeout: float = 1.0) -> StallReport:
    with pytest.raises(StepTimeout) as caught:
        engine.collective_rpc("stall", args=(1, how, timeout + 1.5), timeout=timeout)
    report = caught.value.report
    assert report is not None
    assert str(report) in str(caught.value)
    assert (report.method, report.suspects) == ("stall", (1,))
    assert "waiting for rank 1" in str(report)
    return report


def _report_of_busy_rank(engine: Engine, how: str) -> RankReport:
    """Of rank 1, which uses its core all the time. A loaded machine may give it none while a short call
    waits: then a longer call follows."""
    for timeout in (1.0, 4.0, 16.0):
        rank = _report(engine, how, timeout).ranks[1]
        if rank.cpu_s > 0 and f"in stall_{how}" in rank.stacks:
            break
    return rank


def test_a_rank_that_sleeps_is_named_with_its_stack(engine: Engine) -> None:
    report = _report(engine, "asleep")
    other, rank = report.ranks
    assert other.progress.done
    assert (rank.progress.started, rank.progress.finished) == (True, False)
    assert (rank.progress.phase, rank.progress.method) == ("running", "stall")
    assert rank.cpu_s < 0.3
    assert "in stall_asleep" in rank.stacks
    assert "in stall_asleep" in str(report)


def test_a_rank_that_spins_in_python_is_named_with_its_stack_and_cpu_time(engine: Engine) -> None:
    rank = _report_of_busy_rank(engine, "in_python")
    assert "in stall_in_python" in rank.stacks
    assert rank.cpu_s > 0


def test_a_rank_that_keeps_the_interpreters_lock_in_c_is_named_with_its_stack(
    engine: Engine,
) -> None:
    rank = _report_of_busy_rank(engine, "in_c")
    assert "in stall_in_c" in rank.stacks
    assert rank.cpu_s > 0


def test_a_rank_that_is_stopped_is_named(engine: Engine) -> None:
    rank = _report(engine, "stopped").ranks[1]
    assert rank.state == "stopped"
    assert "stopped" in rank.stacks


def test_a_rank_that_others_wait_for_in_a_collective_is_the_one_named(engine: Engine) -> None:
    waiting, rank = _report(engine, "before_a_collective").ranks
    assert waiting.in_collective
    assert not waiting.progress.finished
    assert "all_reduce" in waiting.stacks
    assert "in stall_before_a_collective" in rank.stacks


def test_a_rank_that_has_not_read_the_request_is_told_from_one_that_works_on_it(
    engine: Engine,
) -> None:
    engine.call("stall", (1, "asleep", 1.5), reply_ranks=None)
    with pytest.raises(StepTimeout) as caught:
        engine.collective_rpc("echo", args=(1,), timeout=0.5)
    report: Any = caught.value.report
    other, rank = report.ranks
    assert other.progress.done
    assert not rank.progress.read
    assert (rank.progress.method, rank.progress.step) == ("stall", report.step - 1)
    assert rank.progress.unread_bytes > 0
    assert "not read" in str(rank)


def test_a_slow_step_is_warned_of_at_doubling_intervals_and_goes_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine.collective_rpc("stall", args=(1, "asleep", 3.0)) == [None, None]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # At 0.6, 1.2 and 2.4 s; on a busy machine one may come too late.
    assert 2 <= len(warnings) <= 3
    assert all("waiting for rank 1" in warning for warning in warnings)
    assert "in stall_asleep" in warnings[0]


def test_a_rank_whose_reply_nobody_has_read_yet_is_not_waited_for(
    engine: Engine, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    future = engine.call("stall", (1, "asleep", 2.5), non_block=True)
    eventually(lambda: caplog.records, "a warning")
    assert "waiting for rank 1\n" in caplog.records[0].getMessage()
    assert future.result(timeout=30) == [None, None]


def test_a_slow_step_goes_on_when_no_thread_can_be_had_to_warn_of_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert engine.collective_rpc("stall", args=(1, "asleep", 3 * _WARN_S))
    assert refused.is_set()


def test_a_step_in_time_is_not_warned_of(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert engine.collective_rpc("stall", args=(1, "asleep", _WARN_S / 3)) == [None, None]
    assert not caplog.records
