"""Ranks that form a process group and add up their numbers: with an engine, or each by itself (`plain`)."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

import mpspmd


class Adder(mpspmd.Worker):
    def execute_model(self) -> float:
        self.ctx.init_process_group()
        return total()


def total() -> float:
    number = torch.tensor(dist.get_rank() + 1.0)
    dist.all_reduce(number)
    dist.destroy_process_group()
    return number.item()


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        dist.init_process_group("gloo")
        print(total(), flush=True)
    else:
        mpspmd.run(Adder, lambda engine: print(engine.execute_model()), world_size=2)
