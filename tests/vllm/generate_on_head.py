"""python generate_on_head.py MODEL BACKEND HEAD ADAPTER OUT: an `LLM` on the head of two nodes, with TP 2.

It generates with and without a LoRA, calls a function on every rank, and writes what came out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import workload


def main() -> None:
    model, backend, head, adapter, out = sys.argv[1:]
    workload.set_environment()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model,
        tensor_parallel_size=2,
        nnodes=2,
        node_rank=0,
        master_addr=head,
        distributed_executor_backend=backend,
        enforce_eager=True,
        enable_lora=True,
        max_num_seqs=128,
        **workload.ENGINE_ARGS,
    )

    def generate(lora: LoRARequest | None) -> list[dict[str, Any]]:
        outputs = llm.generate(
            [{"prompt_token_ids": ids} for ids in workload.prompts()],
            [SamplingParams(**workload.sampling(prompt)) for prompt in range(workload.PROMPTS)],
            use_tqdm=False,
            lora_request=lora,
        )
        return [workload.comparable(output) for output in outputs]

    value = 40
    answers = llm.collective_rpc(lambda worker, plus: [worker.rank, value + plus], args=(2,))
    result = {
        "plain": generate(None),
        "lora": generate(LoRARequest("adapter", 1, adapter)),
        "answers": answers,
    }
    Path(out).write_text(json.dumps(result))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
