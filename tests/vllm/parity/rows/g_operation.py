"""Rows: what is done to engines that run, and with them: faults, benchmarks, where ranks run."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from parity.feature import ENVIRONMENT, Place, engine, need_gpu, row
from parity.rows.a_generation import PROMPTS, generate, plain
from parity.rows.c_engines import EXPERT_PARALLEL, pp
from parity.rows.d_server import rank_below
from parity.rows.e_setups import completion


@engine("tp-pp")
def tp_pp(models: Path) -> dict[str, Any]:
    """Two ranks on each core."""
    cores = os.environ["VLLM_CPU_OMP_THREADS_BIND"]
    four = {
        "tensor_parallel_size": 2,
        ENVIRONMENT: {"VLLM_CPU_OMP_THREADS_BIND": f"{cores}|{cores}"},
    }
    return pp(models) | four


@row("tp-pp", "TP 2 with PP 2", engine="tp-pp")
def tensor_and_pipeline(llm: Any, place: Place) -> Any:
    return [llm.collective_rpc("where_am_i"), generate(llm), generate(llm, seed=3)]


@row("dp-experts", "DP 2, a model of experts, each split over both", engine=None)
def experts(place: Place) -> Any:
    return completion(place, "dp-experts", "--data-parallel-size", "2", model="moe")


@row("dp-ep", "DP 2, a model of experts, with expert parallelism", engine=None)
def parallel_experts(place: Place) -> Any:
    need_gpu(EXPERT_PARALLEL)
    options = ("--data-parallel-size", "2", "--enable-expert-parallel")
    return completion(place, "dp-ep", *options, model="moe")


@row("retry", "fault tolerance: a failed step, retry, and right answers", engine=None)
def retry(place: Place) -> Any:
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.fault_tolerance.utils import FaultToleranceRequest

    async def run() -> Any:
        arguments = plain(place.models) | {"distributed_executor_backend": place.backend}
        config = AsyncEngineArgs(**arguments).create_engine_config()
        # Not by arguments: of them vLLM wants several servers, which a retry doesn't need.
        config.parallel_config.enable_fault_tolerance = True
        config.parallel_config.all2all_backend = "deepep_low_latency"
        llm = AsyncLLM.from_vllm_config(config)
        sampling = SamplingParams(max_tokens=20, ignore_eos=True, temperature=0)

        async def one(name: str) -> Any:
            async for output in llm.generate(PROMPTS[1], sampling, name):
                last = output
            return [list(last.outputs[0].token_ids), last.outputs[0].finish_reason]

        async def states() -> Any:
            return [each["status"] for each in (await llm.get_status())["engines"]]

        async def until(wanted: str) -> Any:
            for _ in range(100):
                if await states() == [wanted]:
                    break
                await asyncio.sleep(0.05)
            return await states()

        try:
            said = [await one("a"), await states()]
            for number in range(2):
                await llm.collective_rpc("break_next_step")
                said.append((await one(f"broken {number}"))[1])
                said.append(await until("unhealthy"))
                request = FaultToleranceRequest("retry", {}, "again")
                answer = await llm.handle_fault(request)
                said += [answer.success, answer.reason, await until("healthy"), await one("b")]
            return said
        finally:
            llm.shutdown()

    return asyncio.run(run())


@engine("weights")
def weights_engine(models: Path) -> dict[str, Any]:
    importlib.import_module("parity.weights")  # vLLM asks whether there is such an engine
    return plain(models) | {
        "weight_transfer_config": {"backend": "files"},
        "worker_extension_cls": "parity.weights.WeightsExtension",
    }


@row("weights", "weight transfer, by an engine of ours that reads files", engine="weights")
def transfer(llm: Any, place: Place) -> Any:
    from safetensors.torch import load_file, save_file

    weights = load_file(place.models / "llama" / "model.safetensors")

    def greet(text: str) -> Any:
        info = {"init_info": {"greeting": text}}
        return llm.collective_rpc("init_weight_transfer_engine", kwargs=info)

    def send(*chunks: Any) -> None:
        llm.collective_rpc("start_weight_update")
        for name, tensor in chunks:
            with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
                save_file({name: tensor}, file.name)
                info = {"update_info": {"file": file.name}}
                llm.collective_rpc("update_weights", kwargs=info)
        llm.collective_rpc("finish_weight_update")
        llm.reset_prefix_cache()

    head, norm = weights["lm_head.weight"], weights["model.norm.weight"]
    said = [generate(llm, PROMPTS[:2]), greet("hello")]
    send(("lm_head.weight", -head), ("model.norm.weight", 2 * norm))
    said.append(generate(llm, PROMPTS[:2]))
    send(("lm_head.weight", head), ("model.norm.weight", norm))
    return [*said, generate(llm, PROMPTS[:2])]


@engine("nccl")
def nccl_engine(models: Path) -> dict[str, Any]:
    need_gpu("NCCL")
    return plain(models) | {"weight_transfer_config": {"backend": "nccl"}}


@row("weights-nccl", "weight transfer by NCCL", engine="nccl")
def transfer_by_nccl(llm: Any, place: Place) -> Any:
    info = {
        "master_address": "127.0.0.1",
        "master_port": 29_999,
        "rank_offset": 1,
        "world_size": 3,
    }
    return llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": info})


def bench(place: Place, which: str, *options: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        common = (
            "--model", str(place.models / "llama"), "--max-model-len", "512",
            "--tensor-parallel-size", "2", "--distributed-executor-backend", place.backend,
            "--enforce-eager", "--output-json", str(out),
        )  # fmt: skip
        program = Path(sys.executable).with_name("vllm")
        done = subprocess.run(
            [program, "bench", which, *common, *options], capture_output=True, text=True
        )
        print(done.stdout[-3000:], done.stderr[-3000:])
        results = json.loads(out.read_text()) if out.exists() else {}
    counts = {
        name: results[name] for name in ("num_requests", "total_num_tokens") if name in results
    }
    return [done.returncode, sorted(results), counts]


@row("bench-latency", "`vllm bench latency`", engine=None)
def bench_latency(place: Place) -> Any:
    sizes = ("--input-len", "16", "--output-len", "8", "--batch-size", "4")
    return bench(place, "latency", *sizes, "--num-iters", "3", "--num-iters-warmup", "1")


@row("bench-throughput", "`vllm bench throughput`", engine=None)
def bench_throughput(place: Place) -> Any:
    sizes = ("--random-input-len", "16", "--random-output-len", "8", "--num-prompts", "16")
    return bench(place, "throughput", "--dataset-name", "random", *sizes)


def where_it_runs(worker: Any) -> Any:
    import torch

    cores = {
        tuple(sorted(os.sched_getaffinity(int(name)))) for name in os.listdir("/proc/self/task")
    }
    return [sorted(cores), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")]


@engine("cores")
def exchanged_cores(models: Path) -> dict[str, Any]:
    given = os.environ["VLLM_CPU_OMP_THREADS_BIND"].split("|")
    return plain(models) | {ENVIRONMENT: {"VLLM_CPU_OMP_THREADS_BIND": "|".join(reversed(given))}}


@row("cores", "cores given to ranks, the other way round", engine="cores")
def cores(llm: Any, place: Place) -> Any:
    return [llm.collective_rpc(where_it_runs), generate(llm)]


@engine("numa-bind")
def bound_to_node(models: Path) -> dict[str, Any]:
    return plain(models) | {"numa_bind": True, "numa_bind_nodes": [0, 0]}


@row("numa-bind", "`--numa-bind`", engine="numa-bind")
def numa_bind(llm: Any, place: Place) -> Any:
    return [llm.collective_rpc(where_it_runs), generate(llm, PROMPTS[:2])]


@engine("in-process")
def in_this_process(models: Path) -> dict[str, Any]:
    return plain(models) | {ENVIRONMENT: {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}}


@row("in-process", "the engine in the caller's process", engine="in-process")
def in_process(llm: Any, place: Place) -> Any:
    return [generate(llm), llm.collective_rpc("where_am_i")]


@row(
    "failure-callback",
    "the failure callback of an executor whose rank has died",
    engine="in-process",
    last=True,
)
def failure_callback(llm: Any, place: Place) -> Any:
    executor = llm.llm_engine.engine_core.engine_core.model_executor
    called, late = threading.Event(), threading.Event()
    executor.register_failure_callback(called.set)
    failed_before = bool(executor.is_failed)
    rank_below(os.getpid()).kill()
    told = called.wait(30)
    executor.register_failure_callback(late.set)
    return [failed_before, told, bool(executor.is_failed), late.wait(5)]
