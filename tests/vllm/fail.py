"""`fail.py MODEL HOW`: an LLM on mp-spmd that fails or is deleted; writes what its caller gets, as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workload

OUT: dict[str, Any] = {}


def describe(error: BaseException) -> dict[str, Any]:
    causes, cause = [], error.__cause__
    while cause is not None:
        causes.append({"type": type(cause).__name__, "text": str(cause)})
        cause = cause.__cause__
    return {"type": type(error).__name__, "text": str(error), "causes": causes}


ARGUMENTS: dict[str, Any] = {
    "tensor_parallel_size": 2,
    "distributed_executor_backend": "mp-spmd",
    "enforce_eager": True,
    "enable_lora": True,
    **workload.ENGINE_ARGS,
}
PROMPT = {"prompt_token_ids": [5, 6, 7]}


def make_llm(model: str) -> Any:
    from vllm import LLM

    return LLM(model, **ARGUMENTS)


def sampling(tokens: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0)


def generate(llm: Any, tokens: int) -> int:
    outputs = llm.generate([PROMPT], sampling(tokens), use_tqdm=False)
    return len(outputs[0].outputs[0].token_ids)


async def fail_with_requests_under_way(model: str, rank: int) -> None:
    """Three, and one more when the engine is dead."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model, **ARGUMENTS))

    async def one(name: str) -> None:
        async for _ in llm.generate(PROMPT, sampling(400), name):
            pass

    await llm.collective_rpc(fail_on, args=(rank,))
    errors = await asyncio.gather(*map(one, "abc"), return_exceptions=True)
    errors += await asyncio.gather(one("later"), return_exceptions=True)
    OUT["errors"] = [describe(error) for error in errors if error is not None]
    OUT["errored"] = llm.errored


def fail_on(worker: Any, rank: int) -> None:
    if worker.ctx.rank == rank:

        def execute_model(*args: Any, **kwargs: Any) -> None:
            raise ValueError(f"rank {rank} has had enough")

        worker.worker.model_runner.execute_model = execute_model


def skip_on(worker: Any, rank: int) -> None:
    """This rank doesn't join the next all-reduce."""
    if worker.ctx.rank != rank:
        return
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    join = group.all_reduce

    def all_reduce(tensor: Any) -> Any:
        group.all_reduce = join
        return tensor

    group.all_reduce = all_reduce


def pid_of_rank_1(worker: Any) -> int | None:
    return os.getpid() if worker.ctx.rank == 1 else None


def pids_of_engine_and_ranks(llm: Any) -> list[int]:
    found = llm.collective_rpc(lambda worker: (os.getppid(), os.getpid()))
    return [found[0][0], *(pid for _, pid in found)]


def are_gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(map(_lives, pids)))


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def try_a_lora_that_is_not_there(llm: Any) -> None:
    from vllm.lora.request import LoRARequest

    try:
        llm.llm_engine.add_lora(LoRARequest("missing", 1, "/nowhere/at/all"))
    except Exception as error:
        OUT["lora"] = describe(error)
    OUT["tokens_after_lora"] = generate(llm, 8)


def main(model: str, how: str) -> None:
    try:
        if how == "raise 0 under way":
            asyncio.run(fail_with_requests_under_way(model, 0))
            return
        llm = make_llm(model)
        if how == "kill":
            try_a_lora_that_is_not_there(llm)
            pid = llm.collective_rpc(pid_of_rank_1)[1]
            OUT["pid"] = pid
            threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        elif how == "kill engine":
            pids = pids_of_engine_and_ranks(llm)
            os.kill(pids[0], signal.SIGKILL)
            OUT["gone"] = are_gone(pids)
            # Before that `generate` would wait for ever, with `mp` too.
            wait_until(lambda: llm.llm_engine.engine_core.resources.engine_dead)
        elif how == "raise 1":
            llm.collective_rpc(fail_on, args=(1,))
        elif how == "skip":
            llm.collective_rpc(skip_on, args=(1,))
        elif how == "delete":
            generate(llm, 8)
            pids = pids_of_engine_and_ranks(llm)
            del llm
            gc.collect()
            OUT["gone"] = are_gone(pids)
            return
        generate(llm, 400)
    except Exception as error:
        OUT["error"] = describe(error)
    finally:
        Path(os.environ["OUT"]).write_text(json.dumps(OUT))


if __name__ == "__main__":
    workload.set_environment()
    main(*sys.argv[1:])
