"""What is read of nvidia-smi, and what gpu_check makes of it.

`nvidia_smi` puts a program of that name into PATH, which prints lines of nvidia-smi's documented form.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check import Check, checks_of, introduction, with_ranks, write
from benchmarks.nvidia import BusyShare, Gpu, compute_pids, gpus
from benchmarks.results import new_results
from benchmarks.runs import GPU_RUNS

ROOT = Path(__file__).parents[2]
H100 = Gpu("NVIDIA H100 80GB HBM3", "550.54.15", 81559, 4)
_PROGRAM = """#!/bin/sh
case "$1" in
--query-gpu=name*) echo "NVIDIA H100 80GB HBM3, 550.54.15, 81559, 4" ;;
--query-compute-apps=pid) echo 41; echo 42 ;;
*) while echo 75; do sleep 0.01; done ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.fixture
def no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def gpu_check(folder: Path) -> subprocess.CompletedProcess[str]:
    """With one quick test instead of tests/gpu."""
    test = folder / "test_one.py"
    test.write_text("def test_one_is_one():\n    assert 1 == 1\n")
    options = ["--tests", str(test), "--folder", str(folder), "--document", str(folder / "gpu.md")]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.usefixtures("nvidia_smi")
def test_gpus_and_processes_are_those_that_nvidia_smi_names() -> None:
    assert gpus() == [H100]
    assert compute_pids() == {41, 42}


@pytest.mark.usefixtures("no_nvidia_smi")
def test_without_a_driver_there_are_no_gpus() -> None:
    assert gpus() == []
    assert compute_pids() == set()


@pytest.mark.usefixtures("nvidia_smi")
def test_the_busy_share_is_the_mean_of_the_samples_of_a_time(
    eventually: Callable[..., None],
) -> None:
    began = time.perf_counter()
    busy = BusyShare()
    try:
        eventually(lambda: busy.between(began, time.perf_counter()) == 75, "a sample has come")
        assert busy.between(began - 2, began - 1) is None
    finally:
        busy.close()


@pytest.mark.usefixtures("no_nvidia_smi")
def test_without_a_gpu_one_line_says_so_after_the_tests(tmp_path: Path) -> None:
    done = gpu_check(tmp_path)
    line = "gpu-check: there is no NVIDIA GPU here; 1 tests have passed on the CPU\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    assert not (tmp_path / "gpu.md").exists()


@pytest.mark.usefixtures("nvidia_smi")
def test_a_gpu_that_pytorch_cannot_use_is_an_error(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("PyTorch can use the GPU that is here")
    done = gpu_check(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"gpu-check: this PyTorch can't use the {H100.name}\n"


def test_the_outcome_of_each_test_is_read_with_its_reason() -> None:
    junit = (
        '<testsuites><testsuite><testcase name="test_it_works"/>'
        '<testcase name="test_a_gpu_is_used"><skipped message="needs a GPU"/></testcase>'
        '<testcase name="test_it_holds"><failure message="assert 1 == 2&#10;more"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert list(checks_of(junit)) == [
        Check("it works", "passed"),
        Check("a gpu is used", "skipped: needs a GPU"),
        Check("it holds", "failed: assert 1 == 2"),
    ]


def test_the_document_has_the_gpus_the_checks_and_what_is_missing(tmp_path: Path) -> None:
    row: dict[str, Any] = {"transport": "mpspmd", "version": "1", "ranks": 1, "size_bytes": 64}
    row |= dict.fromkeys(("mean_us", "p50_us", "p90_us", "p99_us", "p999_us"), 1.5)
    results = new_results("channel_latency", 1, 64, {"reply": "all"})
    results["results"].append(row | {"same_tokens": False, "concurrency": 8})
    (tmp_path / "round-trips.json").write_text(json.dumps(results))
    runs = {name: with_ranks(run, 1) for name, run in GPU_RUNS.items()}
    missing = {"paced": "stopped after 9 s"}
    first = list(introduction([H100, H100], [Check("it works", "passed")], runs, missing))
    assert write(tmp_path / "gpu.md", runs, tmp_path, first) == [8]
    text = (tmp_path / "gpu.md").read_text()
    assert "2 of NVIDIA H100 80GB HBM3 (80 GiB); driver 550.54.15." in text
    assert "- it works: passed" in text
    assert "- A message every few milliseconds: stopped after 9 s" in text
    assert "| 1 | 64 B | mpspmd | 1 | 1.5 |" in text
    assert "--tp 1 " in runs["vllm"].options
