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

import psutil

from parity.feature import Place, need_gpu, row
from parity.rows.a_generation import PROMPTS, generate, plain
from parity.rows.b_control import outcome
from parity.rows.e_setups import completion, end, make


@row("tp-pp", "TP 2 with PP 2", engine=None)
def tensor_and_pipeline(place: Place) -> Any:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] += "|" + os.environ["VLLM_CPU_OMP_THREADS_BIND"]
    llm = make(
        place,
        pipeline_parallel_size=2,
        enforce_eager=False,
        compilation_config={"backend": "eager"},
    )
    try:
        return [llm.collective_rpc("where_am_i"), generate(llm), generate(llm, seed=3)]
    finally:
        end(llm)


@row("dp-experts", "DP 2 with experts on both", engine=None)
def experts(place: Place) -> Any:
    options = ("--data-parallel-size", "2", "--enable-expert-parallel")
    return completion(place, "dp-experts", *options, model="moe")


@row("retry", "fault tolerance: a failed step, retry, and right answers", engine=None)
def retry(place: Place) -> Any:
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.fault_tolerance.utils import FaultToleranceRequest

    async def run() -> Any:
        tolerant = {"enable_fault_tolerance": True, "all2all_backend": "deepep_low_latency"}
        arguments = plain(place.models) | {"distributed_executor_backend": place.backend}
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments | tolerant))
        sampling = SamplingParams(max_tokens=20, ignore_eos=True, temperature=0)

        async def one(name: str) -> Any:
            async for output in llm.generate(PROMPTS[1], sampling, name):
                last = output
            return [list(last.outputs[0].token_ids), last.outputs[0].finish_reason]

        async def states() -> Any:
            return sorted(each["status"] for each in (await llm.get_status()))

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


@row("weights", "weight transfer, by an engine of ours that reads files", engine=None)
def transfer(place: Place) -> Any:
    importlib.import_module("parity.weights")  # vLLM asks whether there is such an engine
    from safetensors.torch import load_file, save_file

    llm = make(
        place,
        weight_transfer_config={"backend": "files"},
        worker_extension_cls="parity.weights.WeightsExtension",
    )
    weights = load_file(place.models / "llama" / "model.safetensors")

    def send(*chunks: Any) -> None:
        llm.collective_rpc("start_weight_update")
        for name, tensor in chunks:
            with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
                save_file({name: tensor}, file.name)
                info = {"update_info": {"file": file.name}}
                llm.collective_rpc("update_weights", kwargs=info)
        llm.collective_rpc("finish_weight_update")
        llm.reset_prefix_cache()

    def greet(text: str) -> Any:
        info = {"init_info": {"greeting": text}}
        return llm.collective_rpc("init_weight_transfer_engine", kwargs=info)

    head, norm = weights["lm_head.weight"], weights["model.norm.weight"]
    try:
        said = [generate(llm, PROMPTS[:2])]
        said += [outcome(lambda: greet("goodbye")), greet("hello")]
        send(("lm_head.weight", -head), ("model.norm.weight", 2 * norm))
        said.append(generate(llm, PROMPTS[:2]))
        send(("lm_head.weight", head), ("model.norm.weight", norm))
        said.append(generate(llm, PROMPTS[:2]))
        return said
    finally:
        end(llm)


@row("weights-nccl", "weight transfer by NCCL", engine=None)
def transfer_by_nccl(place: Place) -> Any:
    need_gpu("vLLM's weight transfer (NCCL, CUDA IPC)")
    llm = make(place, weight_transfer_config={"backend": "nccl"})
    try:
        return llm.collective_rpc("check_health")
    finally:
        end(llm)


@row("failure-callback", "the failure callback of an executor whose rank has died", engine=None)
def failure_callback(place: Place) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    llm = make(place)
    executor = llm.llm_engine.engine_core.engine_core.model_executor
    called = threading.Event()
    executor.register_failure_callback(called.set)
    try:
        before = [generate(llm, PROMPTS[:2]), bool(executor.is_failed)]
        children = psutil.Process().children(recursive=True)
        (rank,) = [each for each in children if "Worker_TP1" in " ".join(each.cmdline())]
        rank.kill()
        told = called.wait(30)
        late = threading.Event()
        executor.register_failure_callback(late.set)
        return [before, told, bool(executor.is_failed), late.wait(5)]
    finally:
        end(llm)


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


@row("cores", "cores given to ranks, the other way round", engine=None)
def cores(place: Place) -> Any:
    given = os.environ["VLLM_CPU_OMP_THREADS_BIND"].split("|")
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(reversed(given))
    llm = make(place)
    try:
        return [llm.collective_rpc(where_it_runs), generate(llm)]
    finally:
        end(llm)


@row("numa-bind", "`--numa-bind`", engine=None)
def numa_bind(place: Place) -> Any:
    llm = make(place, numa_bind=True, numa_bind_nodes=[0, 0])
    try:
        return [llm.collective_rpc(where_it_runs), generate(llm, PROMPTS[:2])]
    finally:
        end(llm)
