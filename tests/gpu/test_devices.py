"""Engines whose ranks use GPUs. Where there is none, they use the CPU, and what needs a GPU is skipped.

`make gpu-check` runs these tests on a machine with GPUs and lists them in docs/benchmarks-gpu.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from device_worker import SIZE, DeviceWorker, on_gpu

from benchmarks.nvidia import gpus
from mpspmd import Engine
from mpspmd.errors import EncodeError, RankDied, RankError

pytestmark = pytest.mark.timeout(120)

HERE = Path(__file__).parent
needs_gpu = pytest.mark.skipif(not on_gpu(), reason="needs a GPU")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(DeviceWorker, world_size=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def process() -> dict[str, Any]:
    """What the process of an engine has of the GPUs that its ranks use."""
    done = subprocess.run(
        [sys.executable, HERE / "engine_process.py"],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def step(engine: Engine, numbers: torch.Tensor) -> list[torch.Tensor]:
    begun = engine.steps.send("forward", (numbers,))
    replies: list[torch.Tensor] = engine.steps.call("sample", ends=begun, timeout=60)
    return replies


def test_the_engines_process_opens_no_device_and_imports_no_torch(process: dict[str, Any]) -> None:
    device = "cuda" if on_gpu() else "cpu"
    assert [each.partition(":")[0] for each in process["devices"]] == [device, device]
    assert process["open devices"] == []
    assert not process["driver is mapped"]
    assert not process["torch is imported"]


@needs_gpu
def test_only_the_ranks_have_cuda_contexts(process: dict[str, Any]) -> None:
    listed = set(process["with a context"])
    if not listed & set(process["ranks"]):
        pytest.skip("the driver lists processes by the numbers of another namespace")
    assert set(process["ranks"]) <= listed
    assert process["engine"] not in listed


@needs_gpu
def test_a_tensor_on_a_device_is_refused_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(RankError, match=r"on cuda:\d+ can't be sent to another process"):
        engine.collective_rpc("output_on_device")
    with pytest.raises(
        EncodeError, match=r"keep it in the worker's state, or send tensor\.cpu\(\)"
    ):
        engine.collective_rpc("double", (torch.zeros(3, device="cuda"),))
    assert len(engine.collective_rpc("device_name")) == 2


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_pinned_host_memory_goes_through_the_ring(engine: Engine, size: int) -> None:
    numbers = torch.arange(size, dtype=torch.float32)
    for doubled, pinned in engine.collective_rpc("double", (numbers,)):
        assert torch.equal(doubled, numbers * 2)
        assert pinned == on_gpu()


def test_steps_of_two_calls_replay_what_was_captured(engine: Engine) -> None:
    for number in range(50):
        numbers = torch.full((SIZE,), float(number))
        for rank, reply in enumerate(step(engine, numbers)):
            assert torch.equal(reply, numbers * 3 + rank)


def test_results_that_are_not_computed_yet_are_replied_in_order(engine: Engine) -> None:
    futures = [engine.execute_model(number, non_block=True) for number in range(40)]
    assert [future.result() for future in futures] == [float(number) for number in range(40)]


def test_all_devices_are_in_one_process_group(engine: Engine) -> None:
    ranks = torch.cuda.device_count() if on_gpu() else engine.world_size
    with ExitStack() as stack:
        if ranks != engine.world_size:
            engine = stack.enter_context(Engine(DeviceWorker, world_size=ranks))
        replies = engine.collective_rpc("sum_over_ranks", timeout=60)
    assert replies == [(ranks * (ranks + 1) / 2, "nccl" if on_gpu() else "gloo")] * ranks


def test_a_rank_that_is_killed_while_it_computes_is_named_and_gives_its_memory_back(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    before = [gpu.used_mib for gpu in gpus()]
    with Engine(DeviceWorker, world_size=2) as engine:
        future = engine.collective_rpc("compute_for_ever", (f"{tmp_path}/begun",), non_block=True)
        eventually(lambda: len(list(tmp_path.iterdir())) == 2, "both ranks compute")
        os.kill(engine.pids[1], signal.SIGKILL)
        with pytest.raises(RankDied, match=r"rank 1.*SIGKILL"):
            future.result(timeout=60)

    def is_back() -> bool:
        # The driver gives it back when the process is gone. Others may use some MiB meanwhile.
        return all(now.used_mib <= then + 100 for now, then in zip(gpus(), before, strict=True))

    eventually(is_back, "the ranks' memory of the GPUs is back")
    with Engine(DeviceWorker, world_size=2) as engine:
        assert torch.equal(step(engine, torch.ones(SIZE))[1], torch.full((SIZE,), 4.0))
