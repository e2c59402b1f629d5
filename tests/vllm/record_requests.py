"""python record_requests.py MODEL FOLDER: a short run with chunked prefill, a LoRA and aborts, TP 2, which
MPSPMD_RECORD_REQUESTS records. FOLDER gets the adapter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import workload
from record_steps import make_adapter

REQUESTS = 8


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    workload.set_environment()
    from vllm import EngineArgs, LLMEngine, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLMEngine.from_engine_args(
        EngineArgs(
            str(model),
            tensor_parallel_size=2,
            distributed_executor_backend="mp-spmd",
            enforce_eager=True,
            max_model_len=256,
            max_num_batched_tokens=128,
            disable_log_stats=True,
            enable_lora=True,
        )
    )
    adapter = LoRARequest("adapter", 1, str(make_adapter(model, folder / "adapter")))
    for number in range(REQUESTS):
        engine.add_request(
            str(number),
            {
                "prompt_token_ids": [
                    (7 * number + 3 * i) % 4000 + 10 for i in range(40 + 20 * number)
                ]
            },
            SamplingParams(max_tokens=24, temperature=0.8, seed=None, logprobs=1, ignore_eos=True),
            lora_request=adapter if number % 2 else None,
        )
    steps = 0
    while engine.has_unfinished_requests():
        engine.step()
        steps += 1
        if steps == 12:
            engine.abort_request(["2", "3"])
    engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
