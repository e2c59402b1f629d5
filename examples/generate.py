"""Generates text with a language model, sharded over the ranks by transformers' tensor-parallel plan.

The engine tokenizes and prints; the ranks hold the weights and the key/value cache. Each step sends one
token to all ranks and gets the next one back. The default model is SmolLM2-135M-Instruct.

    python examples/generate.py --ranks 2 "What is the capital of France?"
    mpspmd-launch -n 2 examples/generate.py "What is the capital of France?"
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

import mpspmd


class Worker(mpspmd.Worker):
    """Holds one shard of the model and of the key/value cache."""

    def __init__(self, ctx: mpspmd.RankContext, folder: str) -> None:
        super().__init__(ctx)
        from transformers import AutoModelForCausalLM
        from transformers.distributed import DistributedConfig
        from transformers.utils import logging

        logging.disable_progress_bar()

        # Each rank gets its share of the cores: if each used all, they would slow each other down.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ctx.world_size))
        sharding: dict[str, Any] = {}
        if ctx.world_size > 1:
            os.environ["LOCAL_RANK"] = str(ctx.local_rank)  # transformers reads it
            ctx.init_process_group()
            sharding["distributed_config"] = DistributedConfig(
                tp_size=ctx.world_size, tp_plan="auto"
            )
        # float32, because shardings add up in different orders, and that must not change a token.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **sharding)
        self.model = model.to(ctx.device)
        self.cache: Any = None

    @torch.inference_mode()
    def execute_model(self, tokens: list[int], first: bool) -> int:
        """Appends tokens to the sequence, and returns the likeliest next one."""
        if first:
            self.cache = None
        output = self.model(
            input_ids=torch.tensor([tokens], device=self.ctx.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        return int(output.logits[0, -1].argmax())

    def parameters(self) -> int:
        """The number of parameters that this rank holds."""
        return sum(_local(parameter).numel() for parameter in self.model.parameters())

    def shutdown(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def _local(parameter: Any) -> Any:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def decode(engine: mpspmd.Engine, prompt: list[int], limit: int, end: set[int]) -> Iterator[int]:
    """Greedy decoding: yields a token for each step."""
    tokens, first = prompt, True
    for _ in range(limit):
        token = engine.execute_model(tokens, first)
        if token in end:
            return
        yield token
        tokens, first = [token], False


def answer(engine: mpspmd.Engine, folder: str, question: str, limit: int, details: bool) -> None:
    """Streams the answer to the terminal."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = GenerationConfig.from_pretrained(folder).eos_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    ids: list[int] = []
    shown = ""
    for token in decode(engine, prompt, limit, set(end if isinstance(end, list) else [end])):
        ids.append(token)
        text = tokenizer.decode(ids)
        # A character may consist of several tokens, which only together can be decoded.
        if not text.endswith("\ufffd"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    if details:
        print("tokens:", *ids)
        print("weights of each rank:", *engine.collective_rpc("parameters"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question", nargs="?", default="What is the capital of France?")
    parser.add_argument("--model", help="a folder or a name; default: SmolLM2-135M-Instruct")
    parser.add_argument("--ranks", type=int, help="default: what mpspmd-launch was told, or 1")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--details", action="store_true", help="print the tokens' numbers as well")
    options = parser.parse_args()
    folder = options.model or _default_model()
    mpspmd.run(
        Worker,
        lambda engine: answer(
            engine, folder, options.question, options.max_tokens, options.details
        ),
        world_size=options.ranks,
        args=(folder,),
    )


def _default_model() -> str:
    from make_model import make_model

    return str(make_model())


if __name__ == "__main__":
    main()
