"""Rows: what `generate` can do on a plain engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import workload

from parity.feature import LIFECYCLE, Place, engine, row

PROMPTS = [{"prompt_token_ids": ids} for ids in workload.prompts()[:8]]


@engine("plain")
def plain(models: Path) -> dict[str, Any]:
    return workload.ENGINE_ARGS | {
        "model": str(models / "llama"),
        "tensor_parallel_size": 2,
        "enforce_eager": True,
        "max_logprobs": 20,
        "worker_extension_cls": "parity.extension.Extension",
    }


def generate(llm: Any, prompts: list[Any] = PROMPTS, **sampling: Any) -> Any:
    """All that comes of it, for each prompt and each of its completions."""
    from vllm import SamplingParams

    given = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0} | sampling
    outputs = llm.generate(prompts, SamplingParams(**given), use_tqdm=False)
    return [_shown(output) for output in outputs]


def _shown(output: Any) -> dict[str, Any]:
    return {
        "cached": output.num_cached_tokens,
        "prompt_logprobs": _logprobs(output.prompt_logprobs),
        "completions": [
            {
                "tokens": list(each.token_ids),
                "text": each.text,
                "logprobs": _logprobs(each.logprobs),
                "finish": [each.finish_reason, each.stop_reason],
            }
            for each in output.outputs
        ],
    }


def _logprobs(positions: Any) -> Any:
    if positions is None:
        return None
    return [
        sorted([token, each.logprob, each.rank] for token, each in (position or {}).items())
        for position in positions
    ]


@row(LIFECYCLE, "an engine's start and end, and what it leaves")
def lifecycle(llm: Any, place: Place) -> Any:
    return None


@row("greedy", "greedy decoding")
def greedy(llm: Any, place: Place) -> Any:
    return generate(llm)


@row("seeded", "seeded sampling, top-p, top-k, min-p, penalties")
def seeded(llm: Any, place: Place) -> Any:
    return [
        generate(llm, seed=7, temperature=0.9),
        generate(llm, seed=8, temperature=1.2, top_p=0.9, top_k=40, min_p=0.01),
        generate(llm, seed=9, temperature=0.7, repetition_penalty=1.2, presence_penalty=0.5),
    ]


@row("logprobs", "log-probabilities of samples and prompts, all kinds")
def logprobs(llm: Any, place: Place) -> Any:
    return [
        generate(llm, logprobs=5),
        generate(llm, logprobs=0, max_tokens=4),
        generate(llm, PROMPTS[:4], prompt_logprobs=3, logprobs=20, max_tokens=4),
    ]


@row("n", "n completions a prompt")
def several(llm: Any, place: Place) -> Any:
    return generate(llm, PROMPTS[:4], n=3, seed=3, temperature=1.0)


@row("beam", "beam search")
def beam(llm: Any, place: Place) -> Any:
    from vllm.sampling_params import BeamSearchParams

    outputs = llm.beam_search(
        PROMPTS[:2], BeamSearchParams(beam_width=3, max_tokens=6, ignore_eos=True)
    )
    return [[[each.tokens, each.cum_logprob] for each in output.sequences] for output in outputs]


@row("stop", "stop strings and tokens, bad words, biases, least number of tokens")
def stops(llm: Any, place: Place) -> Any:
    text = generate(llm, PROMPTS[:1])[0]["completions"][0]["text"]
    tokens = generate(llm, PROMPTS[:1])[0]["completions"][0]["tokens"]
    return [
        generate(llm, PROMPTS[:2], stop=[text[6:9]]),
        generate(llm, PROMPTS[:2], stop_token_ids=[tokens[5]], ignore_eos=False),
        generate(llm, PROMPTS[:2], logit_bias={77: 100.0}, max_tokens=4),
        generate(llm, PROMPTS[:2], bad_words=["w3"], min_tokens=3, max_tokens=8),
    ]


@row("prefix-cache", "prefix cache")
def prefix_cache(llm: Any, place: Place) -> Any:
    prompt = [{"prompt_token_ids": list(range(20, 360))}]
    first, second = generate(llm, prompt), generate(llm, prompt)
    reset = llm.reset_prefix_cache()
    return [first, second, reset, generate(llm, prompt)]


@row("structured", "structured output: JSON schema, regex, grammar, choice")
def structured(llm: Any, place: Place) -> Any:
    from vllm.sampling_params import StructuredOutputsParams as Wanted

    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    grammar = 'root ::= "x" digit digit "y"\ndigit ::= "1" | "2"'
    return [
        generate(llm, PROMPTS[:3], structured_outputs=wanted, max_tokens=24, ignore_eos=False)
        for wanted in (
            Wanted(json=schema),
            Wanted(regex="(w1[0-9]{2}|w2){5}"),
            Wanted(grammar=grammar),
            Wanted(choice=["yes", "no"]),
        )
    ]


@row("structured-bad", "structured output with a grammar that is none")
def bad_structure(llm: Any, place: Place) -> Any:
    from vllm.sampling_params import StructuredOutputsParams as Wanted

    try:
        generate(llm, PROMPTS[:1], structured_outputs=Wanted(grammar="root ::= (((("))
    except Exception as error:
        return [type(error).__name__, str(error)[:300], generate(llm, PROMPTS[:2])]
    return "no error"


@row("aborts", "requests aborted at random moments, then 64 right ones")
def aborts(llm: Any, place: Place) -> Any:
    import random

    from vllm import SamplingParams

    engine, draw = llm.llm_engine, random.Random(0)
    for number in range(200):
        prompt = {"prompt_token_ids": [draw.randrange(10, 4000) for _ in range(20)]}
        sampling = SamplingParams(max_tokens=60, ignore_eos=True, temperature=0)
        engine.add_request(f"aborted-{number}", prompt, sampling)
        if draw.random() < 0.15:
            engine.step()
        engine.abort_request([f"aborted-{draw.randrange(number + 1)}"])
    engine.abort_request([f"aborted-{number}" for number in range(200)])
    while engine.has_unfinished_requests():
        engine.step()
    prompts = [{"prompt_token_ids": ids} for ids in workload.prompts()]
    # Without log-probabilities: which requests share a batch decides the order of sums.
    return [each["completions"][0]["tokens"] for each in generate(llm, prompts, max_tokens=8)]
