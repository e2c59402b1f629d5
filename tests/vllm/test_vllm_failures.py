"""What the caller of vLLM gets when ranks fail, and what is left when its processes are killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers, wait_until_gone
from vllm_server import Server

HERE = Path(__file__).parent

Fail = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def fail(tmp_path: Path) -> Fail:
    """Plays fail.py: what its caller got, and the log."""

    def play(model: Path, how: str) -> tuple[dict[str, Any], str]:
        before = Leftovers()
        out = tmp_path / "out.json"
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, HERE / "fail.py", model, how],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=before.environment | {"OUT": str(out)},
                start_new_session=True,
            )
            try:
                process.wait(1200)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        text = (tmp_path / "log").read_text()
        assert out.exists(), text[-5000:]
        print(out.read_text())
        assert wait_until_gone(process.pid, 20) == []
        assert before.new_files(within_s=20) == set()
        return json.loads(out.read_text()), text

    return play


@pytest.mark.slow
def test_a_killed_rank_is_the_cause_of_the_callers_error_and_a_bad_lora_is_no_failure(
    fail: Fail, model: Path
) -> None:
    out, log = fail(model, "kill")
    assert "rank" in out["lora"]["text"]
    assert "/nowhere/at/all" in out["lora"]["text"]
    assert out["tokens_after_lora"] == 8
    assert out["error"]["type"] == "EngineDeadError"
    cause = out["error"]["causes"][0]
    assert cause["type"] == "RankDied"
    report = (
        rf"rank 1 \(pid {out['pid']}\) died (in \w+ \(step \d+\)|idle, after step \d+): "
        "killed by SIGKILL"
    )
    assert re.match(report, cause["text"])
    assert re.search(report, log)


def _check_forward_pass_that_raised(error: dict[str, Any], rank: int) -> None:
    assert error["type"] == "EngineDeadError"
    cause = error["causes"][0]
    assert cause["type"] == "RankError"
    assert f"rank {rank} raised ValueError in execute_model" in cause["text"]
    assert f"rank {rank} has had enough" in cause["text"]
    assert "Traceback" in cause["text"]


@pytest.mark.slow
def test_a_forward_pass_that_raises_on_a_rank_that_does_not_reply_reaches_the_caller(
    fail: Fail, model: Path
) -> None:
    out, _ = fail(model, "raise 1")
    _check_forward_pass_that_raised(out["error"], 1)


@pytest.mark.slow
def test_a_forward_pass_that_raises_fails_all_requests_under_way_and_later_ones(
    fail: Fail, model: Path
) -> None:
    out, _ = fail(model, "raise 0 under way")
    assert out["errored"]
    assert len(out["errors"]) == 4
    for error in out["errors"]:
        _check_forward_pass_that_raised(error, 0)


@pytest.mark.slow
def test_ranks_end_with_a_killed_engine_core_and_the_next_call_gets_an_error(
    fail: Fail, model: Path
) -> None:
    out, _ = fail(model, "kill engine")
    assert out["error"]["type"] == "EngineDeadError"
    assert out["gone"], "the ranks, while their caller lives on"


@pytest.mark.slow
def test_an_llm_that_is_deleted_ends_its_engine_and_ranks(fail: Fail, model: Path) -> None:
    out, _ = fail(model, "delete")
    assert out == {"gone": True}


@pytest.mark.slow
def test_a_rank_that_skips_an_all_reduce_is_named_with_the_collective_and_the_line(
    fail: Fail, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "10")
    out, _ = fail(model, "skip")
    cause = out["error"]["causes"][0]
    assert cause["type"] == "StepTimeout"
    first, second, third = cause["text"].partition("\n")[2].splitlines()[:3]
    assert first.endswith("waiting for rank 1")
    assert re.match(
        r"rank 1 has not joined: shm_\w+ \d+ of tp:0-\[0-1\], sizes \[\[.*\]\], in which rank 0 waits",
        second,
    )
    # Where the model calls it, above vLLM's own layers.
    assert re.match(r"rank 0 is at .*/vllm/model_executor/.*:\d+, in \w+: .*all_", third)


@pytest.mark.slow  # tests/unit/test_start.py has the same without vLLM
def test_a_worker_that_cannot_load_is_the_cause_of_the_constructors_error(
    fail: Fail, model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (weights,) = broken.glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    out, log = fail(broken, "load")
    assert out["error"]["type"] == "RuntimeError"
    cause = out["error"]["causes"][0]
    assert cause["type"] == "StartupError"
    assert "rank 0: SafetensorError" in cause["text"]
    assert "rank 0: SafetensorError" in log


@pytest.mark.slow
def test_nothing_outlives_an_api_server_that_is_killed(model: Path, tmp_path: Path) -> None:
    before = Leftovers()
    server = Server(model, tmp_path / "log.txt", env=before.environment)
    try:
        server.wait_until_healthy()
        request = {"max_tokens": 400, "ignore_eos": True}
        client = threading.Thread(target=_ignore_errors, args=(server, request), daemon=True)
        client.start()
        time.sleep(0.5)
        os.kill(server.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        server.process.wait()
        # The promise is 3 s; on a busy machine it may be more.
        assert wait_until_gone(server.process.pid, 30) == []
        print(f"gone after {time.monotonic() - killed:.2f} s")
        assert before.new_files(within_s=20) == set()
    finally:
        server.kill()


def _ignore_errors(server: Server, sampling: dict[str, object]) -> None:
    try:
        server.stream([5, 6, 7], sampling, timeout_s=4)
    except Exception:
        return
