"""The smallest SPMD engine: every rank runs the same code on the same request.

python examples/hello.py
mpspmd-launch -n 2 examples/hello.py
"""

from __future__ import annotations

import mpspmd


class Worker(mpspmd.Worker):
    """One on every rank; the engine's process has none."""

    def execute_model(self, numbers: list[int]) -> int:
        share = numbers[self.ctx.rank :: self.ctx.world_size]
        return sum(share)


def main(engine: mpspmd.Engine) -> None:
    """Runs in the engine's process."""
    shares = engine.collective_rpc("execute_model", args=(list(range(100)),))
    for rank, share in enumerate(shares):
        print(f"rank {rank} of {engine.world_size}: its share is {share}")
    print(f"together: {sum(shares)}")


if __name__ == "__main__":
    mpspmd.run(Worker, main, world_size=2)
