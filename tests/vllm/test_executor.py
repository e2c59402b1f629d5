"""What vLLM's users can do with the ranks, on one shared engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import workload


def rank_pids(llm: Any) -> list[int]:
    import os

    return llm.collective_rpc(lambda worker: os.getpid())


def test_it_generates_what_mp_does(llm: Any, reference: list[dict[str, Any]]) -> None:
    from vllm import SamplingParams

    outputs = llm.generate(
        [{"prompt_token_ids": ids} for ids in workload.prompts()],
        [SamplingParams(**workload.sampling(prompt)) for prompt in range(workload.PROMPTS)],
        use_tqdm=False,
    )
    # Through JSON, like the reference: tuples become lists there.
    generated = json.loads(json.dumps([workload.comparable(output) for output in outputs]))
    assert generated == reference


def test_rpc_by_name_gets_an_answer_from_every_rank(llm: Any) -> None:
    assert llm.collective_rpc("check_health") == [None, None]


def test_rpc_by_lambda_that_closes_over_a_value_gets_the_wrapper(llm: Any) -> None:
    value = 40
    answers = llm.collective_rpc(
        lambda worker, plus, minus=0: (type(worker).__name__, worker.rank, value + plus - minus),
        args=(3,),
        kwargs={"minus": 1},
    )
    assert answers == [("RankWorker", 0, 42), ("RankWorker", 1, 42)]


def test_after_a_timeout_the_next_call_gets_its_own_answer(llm: Any, tmp_path: Path) -> None:
    def slow(worker: Any, go: str) -> str:
        import os
        import time

        while not os.path.exists(go):
            time.sleep(0.01)
        return "late"

    go = tmp_path / "go"
    with pytest.raises(Exception, match="timed out"):
        llm.collective_rpc(slow, timeout=0.2, args=(str(go),))
    go.touch()
    assert llm.collective_rpc(lambda worker: worker.rank) == [0, 1]


def test_a_failing_method_names_its_rank_and_the_engine_goes_on(llm: Any) -> None:
    def fail(worker: Any) -> None:
        if worker.rank == 1:
            raise ValueError("only on rank 1")

    with pytest.raises(Exception, match="rank 1 raised ValueError"):
        llm.collective_rpc(fail)
    assert llm.collective_rpc(lambda worker: worker.rank) == [0, 1]


def test_every_rank_received_the_same_bytes(llm: Any) -> None:
    from vllm import SamplingParams

    llm.generate("some text", SamplingParams(max_tokens=4, ignore_eos=True), use_tqdm=False)
    digests = llm.collective_rpc(lambda worker: worker.ctx.request_digest())
    assert digests[0] is not None
    assert digests[0] == digests[1]


def test_all_ranks_are_alike_and_no_other_process_is_one(llm: Any) -> None:
    def entry(worker: Any) -> tuple[int, str, str]:
        import multiprocessing
        import os

        target = multiprocessing.current_process()._target  # type: ignore[attr-defined]
        return os.getppid(), type(worker).__name__, type(target).__name__

    entries = llm.collective_rpc(entry)
    assert entries[0] == entries[1], "rank 0 is started as every other rank is"
    pids = rank_pids(llm)
    assert len(set(pids)) == 2
    assert entries[0][0] not in pids, "the engine's process is no rank"


def test_the_engines_process_opens_no_gpu(llm: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that a process could open")
    engine = psutil.Process(llm.collective_rpc(lambda worker: os.getppid())[0])
    assert not [m.path for m in engine.memory_maps() if "libcuda.so" in m.path]
    assert not [f for f in os.listdir(f"/proc/{engine.pid}/fd") if "nvidia" in _target(engine, f)]


def _target(process: psutil.Process, fd: str) -> str:
    try:
        return os.readlink(f"/proc/{process.pid}/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_ray_is_not_imported(llm: Any) -> None:
    assert llm.collective_rpc(lambda worker: "ray" in sys.modules) == [False, False]
    sources = Path(__file__).parents[2] / "mpspmd"
    for source in sources.rglob("*.py"):
        assert "import ray" not in source.read_text(), source


def test_health_profile_and_cache_methods_reach_the_ranks(llm: Any) -> None:
    engine = llm.llm_engine
    engine.reset_mm_cache()
    assert engine.reset_prefix_cache()
    assert llm.collective_rpc("check_health") == [None, None]


def test_registering_twice_wraps_once() -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.executor.abstract import Executor

    from mpspmd.vllm.plugin import register

    register()
    before = Executor.get_class, EngineArgs._check_feature_supported
    register()
    assert (Executor.get_class, EngineArgs._check_feature_supported) == before


def test_other_backends_are_still_found() -> None:
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend="uni"))
    assert Executor.get_class(config) is UniProcExecutor


def test_vllm_is_loaded_only_by_the_backend() -> None:
    code = "import mpspmd, mpspmd.engine.engine, sys; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
