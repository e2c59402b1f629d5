"""The workers of the tests of recordings. Each rank, and each replay, imports this module."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from batches import Batch, Outcome, Sampler

import mpspmd
import mpspmd.rank.worker


class Swapper(Sampler):
    """Replies most keys in the order of the request, so that a reply goes as edits of an earlier one."""

    def execute_model(self, batch: Batch, *more: Any, **named: Any) -> Any:
        keys = list(batch.counts)
        keys[:2] = keys[1::-1]
        tokens = [[batch.counts[key]] for key in keys]
        return Outcome(keys, {key: i for i, key in enumerate(keys)}, tokens, (more, named))


class Counter(Swapper):
    """Its replies depend on all requests before. A thread finishes them, when the rank is at later ones."""

    reply_thread = True

    def __init__(self, ctx: mpspmd.RankContext, first: int, *, step: int = 1) -> None:
        super().__init__(ctx)
        self.count, self.step = first, step
        print("a worker's own words\n", end="", flush=True)  # in one piece: the ranks share a pipe

    def execute_model(self, batch: Batch, *more: Any, **named: Any) -> Any:
        self.count = 0 if "forget" in named else self.count + self.step
        outcome: Outcome = super().execute_model(batch, *more, **named)
        outcome.tokens = [[self.count, self.ctx.rank] for _ in outcome.keys]
        return outcome

    def add(self, number: int) -> list[int]:
        self.count += number
        return [self.count, self.ctx.rank]

    def finish_reply(self, result: Any) -> Any:
        time.sleep(0.001)
        return result

    def refuse(self, rank: int) -> int:
        if self.ctx.rank == rank:
            raise LookupError(f"not on rank {rank}")
        return self.count

    def begin(self, number: int) -> Any:
        self.count += number
        return mpspmd.rank.worker.LATER

    def wait_for(self, path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.002)

    def die_at(self, count: int) -> None:
        if self.ctx.rank == 1 and self.count == count:
            os.kill(os.getpid(), signal.SIGKILL)


class Miscounter(Counter):
    """Another build, in which rank 0 counts one step twice."""

    steps = 0

    def execute_model(self, batch: Batch, *more: Any, **named: Any) -> Any:
        self.steps += 1
        self.count += self.steps == 12 and self.ctx.rank == 0
        return super().execute_model(batch, *more, **named)
