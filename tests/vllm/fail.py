"""`fail.py MODEL HOW`: an LLM on mp-spmd whose ranks fail; prints what its caller gets, as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
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


def make_llm(model: str) -> Any:
    from vllm import LLM

    return LLM(
        model,
        tensor_parallel_size=2,
        distributed_executor_backend="mp-spmd",
        enforce_eager=True,
        enable_lora=True,
        **workload.ENGINE_ARGS,
    )


def generate(llm: Any, tokens: int, **kwargs: Any) -> int:
    from vllm import SamplingParams

    prompt = {"prompt_token_ids": [5, 6, 7]}
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0)
    outputs = llm.generate([prompt], sampling, use_tqdm=False, **kwargs)
    return len(outputs[0].outputs[0].token_ids)


def fail_on(worker: Any, rank: int) -> None:
    if worker.ctx.rank == rank:

        def execute_model(*args: Any, **kwargs: Any) -> None:
            raise ValueError(f"rank {rank} has had enough")

        worker.worker.model_runner.execute_model = execute_model


def pid_of_rank_1(worker: Any) -> int | None:
    return os.getpid() if worker.ctx.rank == 1 else None


def try_a_lora_that_is_not_there(llm: Any) -> None:
    from vllm.lora.request import LoRARequest

    try:
        llm.llm_engine.add_lora(LoRARequest("missing", 1, "/nowhere/at/all"))
    except Exception as error:
        OUT["lora"] = describe(error)
    OUT["tokens_after_lora"] = generate(llm, 8)


def main(model: str, how: str) -> None:
    try:
        llm = make_llm(model)
        if how == "kill":
            try_a_lora_that_is_not_there(llm)
            pid = llm.collective_rpc(pid_of_rank_1)[1]
            OUT["pid"] = pid
            threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        elif how in ("raise 0", "raise 1"):
            llm.collective_rpc(fail_on, args=(int(how[-1]),))
        generate(llm, 400)
    except Exception as error:
        OUT["error"] = describe(error)
    Path(os.environ["OUT"]).write_text(json.dumps(OUT))


if __name__ == "__main__":
    workload.set_environment()
    main(*sys.argv[1:])
