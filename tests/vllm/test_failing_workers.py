"""Workers that fail or are killed, from their constructor on: what the executor says, and what is left."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_steps import run, start, step, submit

from mpspmd.engine import blame
from mpspmd.errors import RankDied, RankError, StartupError
from mpspmd.vllm import causes


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the front end is told, which is this process as well: a function of the latest cause."""
    monkeypatch.setattr(causes, "_seen", 0)
    with monkeypatch.context() as patch:
        patch.delenv("_MPSPMD_CAUSES", raising=False)
        causes.open_file()
        yield causes.latest


def test_workers_that_fail_in_the_constructor_and_while_they_load_are_both_named(
    model: Path,
    tmp_path: Path,
    told: Any,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blame, "START_SETTLE_S", 30.0)  # however late one is on a busy machine

    def change(config: Any) -> None:
        failing = {"constructor": 0, "load": 1}
        config.additional_config = {"fail": failing, "folder": str(tmp_path)}

    before = rank_processes()  # of other tests' engines
    with pytest.raises(StartupError) as caught:
        start(model, asynchronous=False, change=change)
    assert "ValueError: the constructor of rank 0" in caught.value.causes[0]
    assert "ValueError: the load of rank 1" in caught.value.causes[1]
    assert "scripted_worker.py" in caught.value.causes[1]
    assert str(told()) == str(caught.value)
    assert rank_processes() <= before, "no rank is left"
    assert "Exception ignored" not in capfd.readouterr().err, (
        "they exit without a further complaint"
    )


def test_a_warm_up_that_fails_on_one_rank_ends_the_run_and_every_later_call_says_why(
    model: Path, tmp_path: Path, told: Any, eventually: Any
) -> None:
    def change(config: Any) -> None:
        config.additional_config = {"fail": {"warm-up": 1}, "folder": str(tmp_path)}

    executor = start(model, asynchronous=False, change=change)
    try:
        pids = executor.collective_rpc(lambda worker: os.getpid())
        failures: list[str] = []
        executor.register_failure_callback(lambda: failures.append("at once"))
        assert not executor.is_failed
        assert run(executor, step("a")).req_ids == ["a"]
        with pytest.raises(
            RankError,
            match=r"rank 1 raised ValueError in compile_or_warm_up_model .*the warm-up of rank 1",
        ):
            executor.compile_or_warm_up_model()
        assert executor.is_failed
        eventually(lambda: failures == ["at once"], "the callback")
        executor.register_failure_callback(lambda: failures.append("later"))
        assert failures == ["at once", "later"]
        for call in (executor.check_health, lambda: executor.collective_rpc("take_events")):
            with pytest.raises(RankError, match="the warm-up of rank 1"):
                call()
        with pytest.raises(RankError, match="the warm-up of rank 1"):
            run(executor, step("b"))
        assert "the warm-up of rank 1" in str(told())
    finally:
        executor.shutdown()
    assert not any(map(psutil.pid_exists, pids))


def rank_processes() -> set[psutil.Process]:
    """This process's ranks, of all its engines."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child)
    return found


@pytest.mark.parametrize("phase", [pytest.param("constructor", marks=pytest.mark.slow), "load"])
def test_a_worker_that_is_killed_while_it_is_made_is_named(
    model: Path, told: Any, phase: str
) -> None:
    def change(config: Any) -> None:
        config.additional_config = {"die": {phase: 1}}

    before = rank_processes()
    with pytest.raises(StartupError, match=r"rank 1.*SIGKILL") as caught:
        start(model, asynchronous=False, change=change)
    assert str(told()) == str(caught.value)
    assert rank_processes() <= before, "no rank is left"


def submit_three(executor: Any, where: str, rank: int, never: Path) -> None:
    """Steps, as asynchronous scheduling sends them: each fails with the same error."""
    # The other rank doesn't get further, as in a collective.
    hang = f"{'linger' if where == 'sampling' else 'wait'} {never} {1 - rank}"
    steps = [step(name, f"die {where} {rank}", hang) for name in "bcd"]
    futures = [submit(executor, each)[1] for each in steps]
    for future in futures[::-1]:
        assert "killed by SIGKILL" in str(future.exception(60))
    futures[0].result()


@pytest.mark.parametrize(
    ("where", "rank"),
    [
        ("forward", 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("warm-up", 1), ("idle", 0), ("forward", 0), ("sampling", 0), ("sampling", 1), ("output", 0)
            ]
        ),
    ],
)  # fmt: skip
def test_a_worker_that_is_killed_later_ends_the_run_and_every_later_call_says_why(
    model: Path, tmp_path: Path, told: Any, eventually: Any, where: str, rank: int
) -> None:
    def change(config: Any) -> None:
        config.additional_config = {"die": {where: rank}}

    executor = start(model, asynchronous=where == "output", change=change)
    try:
        pids = executor.collective_rpc(lambda worker: os.getpid())
        failures: list[str] = []
        executor.register_failure_callback(lambda: failures.append("at once"))
        assert run(executor, step("a")).req_ids == ["a"]
        if where == "idle":
            os.kill(pids[rank], signal.SIGKILL)
        died = rf"rank {rank} \(pid {pids[rank]}\) died.*killed by SIGKILL"
        act = functools.partial(submit_three, executor, where, rank, tmp_path / "never")
        with pytest.raises(RankDied, match=died):
            executor.compile_or_warm_up_model() if where == "warm-up" else act()
        eventually(lambda: failures == ["at once"], "the callback")
        assert executor.is_failed
        for call in (
            executor.check_health,
            lambda: run(executor, step("e")),
            lambda: executor.collective_rpc("take_events"),
            executor.take_draft_token_ids,
        ):
            with pytest.raises(RankDied, match=died):
                call()
        assert "killed by SIGKILL" in str(told())
    finally:
        executor.shutdown()
    assert not any(map(psutil.pid_exists, pids))
