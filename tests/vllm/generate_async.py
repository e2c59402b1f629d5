"""python generate_async.py MODEL BACKEND OUT: the workload through `AsyncLLM`, TP 2, all at once."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import workload


async def run(model: str, backend: str) -> list[dict[str, Any]]:
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model,
            tensor_parallel_size=2,
            distributed_executor_backend=backend,
            enforce_eager=True,
            **workload.ENGINE_ARGS,
        )
    )

    async def one(prompt: int, ids: list[int]) -> dict[str, Any]:
        params = SamplingParams(**workload.sampling(prompt))
        async for output in engine.generate({"prompt_token_ids": ids}, params, str(prompt)):
            last = output
        return workload.comparable(last)

    try:
        tasks = [one(prompt, ids) for prompt, ids in enumerate(workload.prompts())]
        return await asyncio.gather(*tasks)
    finally:
        engine.shutdown()


if __name__ == "__main__":
    workload.set_environment()
    Path(sys.argv[3]).write_text(json.dumps(asyncio.run(run(sys.argv[1], sys.argv[2]))))
