"""Workers that fail while they are made or warmed up: what the executor says, and what is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_steps import run, start, step

from mpspmd.errors import RankError, StartupError
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
    model: Path, tmp_path: Path, told: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(config: Any) -> None:
        failing = {"constructor": 0, "load": 1}
        config.additional_config = {"fail": failing, "folder": str(tmp_path)}

    before = psutil.Process().children()  # of other tests' engines
    with pytest.raises(StartupError) as caught:
        start(model, asynchronous=False, change=change)
    assert "ValueError: the constructor of rank 0" in caught.value.causes[0]
    assert "ValueError: the load of rank 1" in caught.value.causes[1]
    assert "scripted_worker.py" in caught.value.causes[1]
    assert str(told()) == str(caught.value)
    made = set(psutil.Process().children()) - set(before)
    children = [" ".join(child.cmdline()) for child in made]
    assert not [child for child in children if "spawn_main" in child], "no rank is left"
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
