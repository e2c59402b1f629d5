"""Rows: engines in other places than a process of their own, several of them, and other settings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from parity.feature import ENVIRONMENT, Place, engine, need_gpu, row
from parity.rows.a_generation import PROMPTS, generate, plain
from parity.rows.c_engines import long_prompts_twice
from parity.rows.d_server import ask, serving


def make(place: Place, **changed: Any) -> Any:
    from vllm import LLM

    return LLM(**plain(place.models) | {"distributed_executor_backend": place.backend} | changed)


def end(llm: Any) -> None:
    llm.llm_engine.engine_core.shutdown()


@row("two-engines", "two engines at once, and another one after them", engine=None)
def two_engines(place: Place) -> Any:
    first, second = make(place), make(place)
    said = [generate(first), generate(second)]
    end(first)
    said.append(generate(second, seed=3, temperature=0.9))
    end(second)
    third = make(place)
    said.append(generate(third))
    end(third)
    return said


@row("load-sharded", "loading what `save_sharded_state` has saved", engine=None)
def load_sharded(place: Place) -> Any:
    need_gpu(
        "loading a sharded state: on the CPU vLLM packs the weights of linear layers when it loads them, "
        "and `save_sharded_state` leaves packed weights out; it"
    )
    llm = make(place)
    folder = Path(tempfile.mkdtemp(dir=place.folder))
    llm.llm_engine.engine_core.save_sharded_state(str(folder))
    for file in (place.models / "llama").iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    end(llm)
    llm = make(place, model=str(folder), load_format="sharded_state")
    try:
        return generate(llm)
    finally:
        end(llm)


@engine("unbound")
def without_cores(models: Path) -> dict[str, Any]:
    return plain(models) | {ENVIRONMENT: {"VLLM_CPU_OMP_THREADS_BIND": None}}


@row("unbound", "two CPU ranks on one NUMA node, no cores given", engine="unbound")
def unbound(llm: Any, place: Place) -> Any:
    return [len(each["completions"][0]["tokens"]) for each in generate(llm)]


@row("pause", "`AsyncLLM`: pause, resume, abort", engine=None)
def pause(place: Place) -> Any:
    import asyncio

    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    async def run() -> Any:
        arguments = plain(place.models) | {"distributed_executor_backend": place.backend}
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        sampling = SamplingParams(max_tokens=200, ignore_eos=True, temperature=0)

        async def one(name: str) -> Any:
            async for output in llm.generate(PROMPTS[1], sampling, name):
                last = output
            return [len(last.outputs[0].token_ids) == 200, last.outputs[0].finish_reason]

        try:
            said: list[Any] = [await one("a")]
            under_way = asyncio.create_task(one("b"))
            await asyncio.sleep(0.05)
            await llm.pause_generation(mode="abort")
            said += [await llm.is_paused(), (await under_way)[1]]
            await llm.resume_generation()
            said += [await llm.is_paused(), await one("c")]
            said.append(await llm.collective_rpc("where_am_i"))
            await llm.check_health()
            return said
        finally:
            llm.shutdown()

    return asyncio.run(run())


@engine("multi-kv")
def multi_kv(models: Path) -> dict[str, Any]:
    connectors = [
        {
            "kv_connector": "ExampleConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"shared_storage_path": tempfile.mkdtemp(prefix="kv-")},
        }
        for _ in range(2)
    ]
    return plain(models) | {
        "kv_transfer_config": {
            "kv_connector": "MultiConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"connectors": connectors},
        },
    }


@row("kv-multi", "KV connector: several at once", engine="multi-kv")
def multi_connector(llm: Any, place: Place) -> Any:
    return long_prompts_twice(llm)


@engine("eplb")
def eplb(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "model": str(models / "moe"),
        "enable_expert_parallel": True,
        "enable_eplb": True,
    }


@row("eplb", "balancing of experts (EPLB)", engine="eplb")
def balanced(llm: Any, place: Place) -> Any:
    return generate(llm)


@engine("suffix")
def suffix(models: Path) -> dict[str, Any]:
    return plain(models) | {"speculative_config": {"method": "suffix", "num_speculative_tokens": 3}}


@row("suffix", "speculation by suffixes", engine="suffix")
def suffixes(llm: Any, place: Place) -> Any:
    return generate(llm)


_ONE_MEMORY_NODE = {"VLLM_CPU_SIM_MULTI_NUMA": "0"}
"""vLLM 0.33 wants a memory node for each DP rank, unless this is set: 0 simulates nothing."""


def completion(place: Place, name: str, *options: str, model: str = "llama") -> Any:
    one = ("--tensor-parallel-size", "1")
    with serving(place, name, *one, *options, model=model, env=_ONE_MEMORY_NODE) as server:
        body = {"prompt": [5, 6, 7], "max_tokens": 12, "temperature": 0, "return_token_ids": True}
        answers = [ask(server, "/v1/completions", body | {"model": server.model}) for _ in range(6)]
        return [
            [status, status == 200 and answer["choices"][0]["token_ids"]]
            for status, answer in answers
        ]


@row("dp", "DP 2", engine=None)
def data_parallel(place: Place) -> Any:
    return completion(place, "dp", "--data-parallel-size", "2", "--api-server-count", "1")


@row("dp-api-servers", "DP 2 with two API servers", engine=None)
def api_servers(place: Place) -> Any:
    return completion(place, "dp-api", "--data-parallel-size", "2", "--api-server-count", "2")
