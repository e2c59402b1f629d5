"""python generate.py MODEL BACKEND TP PP OUT: runs the workload through `LLM`, and writes its outputs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import workload


def main() -> None:
    model, backend, tp, pp, out = sys.argv[1:]
    workload.set_environment()
    if backend == "mp":
        # The reference: one process less to start, and the same tokens.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        tensor_parallel_size=int(tp),
        pipeline_parallel_size=int(pp),
        distributed_executor_backend=backend,
        # Eager is faster to start; with PP on the CPU vLLM's warm-up needs the traced model.
        enforce_eager=pp == "1",
        compilation_config={"backend": "eager"} if pp == "2" else None,
        **workload.ENGINE_ARGS,
    )
    outputs = llm.generate(
        [{"prompt_token_ids": ids} for ids in workload.prompts()],
        [SamplingParams(**workload.sampling(prompt)) for prompt in range(workload.PROMPTS)],
        use_tqdm=False,
    )
    Path(out).write_text(json.dumps([workload.comparable(output) for output in outputs]))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
