"""A script for torchrun that shards a model by transformers' plan: knows nothing of mpspmd."""

import sys

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
from transformers.utils import logging


def main() -> None:
    logging.disable_progress_bar()
    folder = sys.argv[1]
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sharded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    )
    prompt = torch.arange(10, 20)[None]
    tokens = [
        model.generate(prompt, do_sample=False, max_new_tokens=10).tolist()
        for model in (whole, sharded)
    ]
    print("same tokens:", tokens[0] == tokens[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
