"""An engine of which one rank takes more memory than its control group has."""

from __future__ import annotations

import mpspmd


class Worker(mpspmd.Worker):
    def take(self, rank: int) -> None:
        if self.ctx.rank == rank:
            self.taken = b"x" * (1 << 29)


if __name__ == "__main__":
    with mpspmd.Engine(Worker, world_size=2) as engine:
        try:
            engine.call("take", (1,))
        except mpspmd.errors.RankDied as error:
            print(error.rank, error.reason)
