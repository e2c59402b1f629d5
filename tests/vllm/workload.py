"""The requests that every backend and every way into vLLM gets, and how outputs are compared."""

from __future__ import annotations

import os
from typing import Any

PROMPTS = 64
TOKENS = 64
LOGPROBS = 2

# All prompts fit into one step: vLLM can't split a seeded request's prompt on the CPU.
ENGINE_ARGS: dict[str, Any] = {
    "max_model_len": 512,
    "max_num_batched_tokens": 8192,
    "disable_log_stats": True,
}


def set_environment() -> None:
    """For this process and its children, before vLLM is imported."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    # Callables for collective_rpc cross to EngineCore by pickle, which vLLM allows only if told.
    os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    # `mp` refuses two ranks on one NUMA node unless told their cores; the same for both backends,
    # because the number of threads decides the order of sums.
    cores = sorted(os.sched_getaffinity(0))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")


def prompts() -> list[list[int]]:
    """Token ids: from 3 to 92 of them, no two prompts alike."""
    return [
        [(7 * prompt + 3 * position) % 4000 + 10 for position in range(3 + prompt * 5 % 90)]
        for prompt in range(PROMPTS)
    ]


def sampling(prompt: int) -> dict[str, Any]:
    """Greedy for every other prompt, seeded sampling for the rest."""
    temperature = 0.0 if prompt % 2 else 0.8
    return {
        "temperature": temperature,
        "seed": prompt,
        "max_tokens": TOKENS,
        "logprobs": LOGPROBS,
        "ignore_eos": True,
    }


def comparable(output: Any) -> dict[str, Any]:
    """Token ids and log-probabilities of a RequestOutput, as JSON keeps them."""
    completion = output.outputs[0]
    return {
        "tokens": list(completion.token_ids),
        "logprobs": [
            sorted([token, logprob.logprob] for token, logprob in position.items())
            for position in completion.logprobs
        ],
    }
