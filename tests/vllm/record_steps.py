"""python record_steps.py MODEL TP PP VARIANT OUT: records what a real scheduler sends and gets back.

VARIANT: "plain" (chunked prefill, prefix-cache hits, preemption with a small cache, aborts, n > 1,
logprobs), "ngram" (the same with speculation), "guided" (with LoRA and structured output). OUT gets a
pickled list of (step's number, kind, pickle).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Record = tuple[int, str, bytes]

REQUESTS = 56
SPECULATION = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2}


def recording(base: type, records: list[Record]) -> type:
    """An executor that writes down each step before it is sent, and each output."""

    class Recording(base):  # type: ignore[misc,valid-type]
        supports_pp = True
        step = 0

        def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
            type(self).step += 1
            self._write("step", scheduler_output)
            return self._watch(super().execute_model(scheduler_output, non_block))

        def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
            return self._watch(super().sample_tokens(grammar_output, non_block))

        def _watch(self, outcome: Any) -> Any:
            step = self.step
            if isinstance(outcome, Future):
                outcome.add_done_callback(lambda done: self._write("output", done.result(), step))
            else:
                self._write("output", outcome, step)
            return outcome

        def _write(self, kind: str, value: Any, step: int | None = None) -> None:
            if value is not None:
                records.append((self.step if step is None else step, kind, pickle.dumps(value)))

    return Recording


def requests() -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Prompts, many of them with a beginning in common, and how to sample."""
    draw = random.Random(0)
    shared = [draw.randrange(10, 4000) for _ in range(160)]
    for number in range(REQUESTS):
        own = [draw.randrange(10, 4000) for _ in range(draw.randrange(3, 90))]
        repeated = own[:5] * 4
        sampling: dict[str, Any] = {
            "temperature": 0.0,
            "max_tokens": draw.randrange(4, 40),
            "ignore_eos": True,
        }
        if number % 5 == 0:
            sampling |= {"logprobs": 2, "prompt_logprobs": 1 if number % 10 == 0 else None}
        if number % 7 == 0:
            sampling |= {"n": 2, "temperature": 0.8}
        prompt = shared + own if number % 3 == 0 else own + repeated
        yield prompt, sampling


def make_adapter(model: Path, folder: Path) -> Path:
    """A LoRA of random weights for all attention projections of `model`, as PEFT writes them."""
    config = json.loads((model / "config.json").read_text())
    size, rank = config["hidden_size"], 8
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for projection in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}.lora"
            weights[f"{name}_A.weight"] = torch.randn(rank, size, generator=generator) / 16
            weights[f"{name}_B.weight"] = torch.randn(size, rank, generator=generator) / 16
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    described = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": str(model),
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


def main() -> None:
    model, tp, pp, variant, out = sys.argv[1:]
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import workload

    workload.set_environment()
    from vllm import EngineArgs, LLMEngine, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from mpspmd.vllm.executor import MpSpmdExecutor

    records: list[Record] = []
    base = UniProcExecutor if tp == pp == "1" else MpSpmdExecutor
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model,
            tensor_parallel_size=int(tp),
            pipeline_parallel_size=int(pp),
            distributed_executor_backend=recording(base, records),
            enforce_eager=pp == "1",
            max_model_len=512,
            max_num_batched_tokens=256,
            max_num_seqs=64,
            block_size=32,
            # Some 20 requests' worth: others are preempted.
            num_gpu_blocks_override=80,
            disable_log_stats=True,
            speculative_config=SPECULATION if variant == "ngram" else None,
            enable_lora=variant == "guided",
        )
    )
    guided = variant == "guided"
    adapter = LoRARequest("adapter", 1, str(make_adapter(Path(model), Path(out + ".lora"))))
    for number, (prompt, sampling) in enumerate(requests()):
        if guided:
            # On the CPU vLLM 0.32 can't have them with an adapter: its einsum gets two sizes.
            sampling.pop("prompt_logprobs", None)
        if guided and number % 4 == 1:
            sampling["structured_outputs"] = StructuredOutputsParams(regex="(w1[0-9]{2}|w2){30}")
        engine.add_request(
            str(number),
            {"prompt_token_ids": prompt},
            SamplingParams(**sampling),
            lora_request=adapter if guided and number % 3 == 0 else None,
        )
    steps = 0
    while engine.has_unfinished_requests():
        engine.step()
        steps += 1
        if steps % 9 == 0:
            engine.abort_request([str(steps), str(REQUESTS - steps)])
    Path(out).write_bytes(pickle.dumps(records))
    engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
