"""mpspmd.Engine as its users call it: a worker's method, by name, on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpspmd
from benchmarks.parent import die_with_parent
from benchmarks.peers.peer import Peer, Setup
from mpspmd.wire import ReplyRanks


class Answering(mpspmd.Worker):
    """Its method `take` takes a request and returns the answer."""

    def __init__(self, ctx: mpspmd.RankContext, setup: Setup) -> None:
        die_with_parent()
        super().__init__(ctx)
        # The engine says who replies to which request.
        everyone = Setup(setup.ranks, answer=setup.answer, timed=setup.timed)
        self.take = everyone.responder(ctx.rank)


class MpspmdEngine(Peer):
    """Engine.call: the request is a method's argument, and the answer is what the method returns.

    So a message also carries the method's name and the ranks that reply, and it passes all that an engine
    does: registered calls, deadlines, the status page, error handling.
    """

    name = "mpspmd-engine"
    version = mpspmd.__version__

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine: mpspmd.Engine | None = None
        self._reply_ranks: ReplyRanks = "all" if setup.reply == "all" else 0
        self._sent = 0
        self._future: mpspmd.StepFuture[Any] | None = None

    def start(self) -> None:
        self._engine = engine = mpspmd.Engine(
            Answering, world_size=self._setup.ranks, args=(self._setup,)
        )
        self._call = engine.call

    @property
    def engine(self) -> mpspmd.Engine:
        """Of a peer that has been started."""
        assert self._engine is not None
        return self._engine

    @property
    def pids(self) -> Sequence[int]:
        return () if self._engine is None else self._engine.pids

    def send(self, request: object) -> None:
        self._sent += isinstance(request, bytes)
        if isinstance(request, bytes) and self._sent % self._setup.every:
            self._call("take", (request,), reply_ranks=None)
        else:
            self._future = self._call(
                "take", (request,), reply_ranks=self._reply_ranks, non_block=True
            )

    def receive(self) -> list[object]:
        assert self._future is not None
        outcome = self._future.result()
        return outcome if type(outcome) is list else [outcome]

    def round_trip(self, request: object) -> list[object]:
        outcome = self._call("take", (request,), reply_ranks=self._reply_ranks)
        return outcome if type(outcome) is list else [outcome]

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
