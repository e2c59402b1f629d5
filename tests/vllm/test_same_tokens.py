"""mp-spmd generates what mp generates: tokens and log-probabilities, greedy and seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Outputs = list[dict[str, Any]]
CLASS_PATH = "mpspmd.vllm.executor.MpSpmdExecutor"


@pytest.mark.slow  # the server in test_server.py is an AsyncLLM by class path, too
def test_async_llm_with_tp_2_by_class_path_generates_what_mp_does(
    model: Path, reference: Outputs, run_script: Callable[..., Outputs]
) -> None:
    assert run_script("generate_async.py", model, CLASS_PATH) == reference


@pytest.mark.slow  # two starts, each of which traces the model in parts: minutes
def test_pp_2_generates_what_mp_does(model: Path, run_script: Callable[..., Outputs]) -> None:
    expected = run_script("generate.py", model, "mp", 1, 2)
    assert run_script("generate.py", model, "mp-spmd", 1, 2) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)])
def test_tokens_are_the_same_when_execute_model_waits_for_its_answer(
    tp: int,
    pp: int,
    model: Path,
    run_script: Callable[..., Outputs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = run_script("generate.py", model, "mp-spmd", tp, pp)
    monkeypatch.setenv("MPSPMD_ANSWER_EARLY", "0")
    assert run_script("generate.py", model, "mp-spmd", tp, pp) == early


@pytest.mark.slow  # test_recorded_steps.py generates with TP 1 too
def test_tp_1_generates(model: Path, run_script: Callable[..., Outputs]) -> None:
    assert run_script("generate.py", model, "mp-spmd", 1, 1)
