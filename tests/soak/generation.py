"""python generation.py SECONDS MODEL OUT: vLLM generates on two ranks, batch after batch.

OUT gets every process's footprint after each batch, and the number of files in /dev/shm, as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "vllm"))

import workload
from footprint import footprint


def main() -> None:
    seconds, model, out = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    workload.set_environment()
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        tensor_parallel_size=2,
        distributed_executor_backend="mp-spmd",
        enforce_eager=True,
        **workload.ENGINE_ARGS,
    )
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    draw = random.Random(3)
    seen: dict[str, list[list[int]]] = {f"{p.pid} {p.name()}": [] for p in processes}
    files: list[int] = []
    tokens = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        prompts = [
            {"prompt_token_ids": [draw.randrange(10, 4000) for _ in range(draw.randrange(3, 90))]}
            for _ in range(draw.randrange(1, 40))
        ]
        sampling = [
            SamplingParams(
                temperature=draw.choice([0.0, 0.8]),
                max_tokens=draw.randrange(1, 60),
                logprobs=draw.choice([None, 2]),
                ignore_eos=True,
            )
            for _ in prompts
        ]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        tokens += sum(len(each.outputs[0].token_ids) for each in outputs)
        time.sleep(draw.random() / 10)
        for process, seen_there in zip(processes, seen.values(), strict=True):
            seen_there.append(list(dataclasses.astuple(footprint(process.pid))))
        files.append(len(os.listdir("/dev/shm")))
    out.write_text(json.dumps({"footprints": seen, "files": files, "tokens": tokens}))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
