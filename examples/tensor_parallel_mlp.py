"""A transformer's feed-forward layer, sharded over the ranks and compared with the whole layer.

The first linear layer is split by columns and the second by rows, so that one all-reduce gives the whole
result. It uses gloo on CPUs and NCCL on GPUs.

    python examples/tensor_parallel_mlp.py --ranks 2
    mpspmd-launch -n 2 examples/tensor_parallel_mlp.py
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

import mpspmd

HIDDEN, INNER, SEED = 256, 1024, 0


def whole_mlp() -> nn.Sequential:
    """The whole layer. Its weights are the same in every process."""
    generator = torch.Generator().manual_seed(SEED)
    mlp = nn.Sequential(nn.Linear(HIDDEN, INNER), nn.GELU(), nn.Linear(INNER, HIDDEN))
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return mlp


class Worker(mpspmd.Worker):
    """Holds its share of the weights. Only inputs and results are sent."""

    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        ctx.init_process_group()
        up, _, down = whole_mlp()
        self.up = shard(up.weight, 0, ctx)
        self.up_bias = shard(up.bias, 0, ctx)
        self.down = shard(down.weight, 1, ctx)
        self.down_bias = down.bias.detach().to(ctx.device)

    @torch.inference_mode()
    def execute_model(self, inputs: Tensor) -> Tensor:
        inner = functional.gelu(
            functional.linear(inputs.to(self.ctx.device), self.up, self.up_bias)
        )
        partial = functional.linear(inner, self.down)
        dist.all_reduce(partial)
        return (partial + self.down_bias).cpu()

    def parameters(self) -> int:
        return self.up.numel() + self.down.numel()

    def shutdown(self) -> None:
        dist.destroy_process_group()


def shard(weight: Tensor, dimension: int, ctx: mpspmd.RankContext) -> Tensor:
    """This rank's part of a weight; a copy, so that the whole weight can be freed."""
    part = weight.detach().chunk(ctx.world_size, dimension)[ctx.rank]
    return part.clone().to(ctx.device)


def main(engine: mpspmd.Engine) -> None:
    """Compares every rank's result with the unsharded one."""
    print(f"weights of each rank: {engine.collective_rpc('parameters')}")
    reference = whole_mlp()
    for batch in (1, 16, 256):
        inputs = torch.randn(batch, HIDDEN, generator=torch.Generator().manual_seed(batch))
        outputs = engine.collective_rpc("execute_model", args=(inputs,))
        with torch.inference_mode():
            expected = reference(inputs)
        for output in outputs:
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
        print(f"batch of {batch}: all {engine.world_size} ranks agree with the unsharded layer")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, help="default: what mpspmd-launch was told, or 1")
    mpspmd.run(Worker, main, world_size=parser.parse_args().ranks)
