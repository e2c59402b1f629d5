"""A script as people write them for torchrun: knows nothing of mpspmd."""

import argparse
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    lr = parser.parse_args().lr
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    assert rank == int(os.environ["RANK"])
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)

    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    # Different data on each rank: only averaged gradients keep the weights the same.
    loss = model(torch.full((2, 4), float(rank + 1))).sum()
    loss.backward()
    optimizer.step()
    weights = [round(weight, 4) for weight in model.module.weight.flatten().tolist()]
    print(f"sum {total.item()} of {dist.get_world_size()}, lr {lr}, weights {weights}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
