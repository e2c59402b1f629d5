"""mpspmd.Engine as its users call it: a worker's method by name, on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch.multiprocessing  # noqa: F401 - takes seconds: now, not while Engine starts

import mpspmd
from benchmarks.parent import die_with_parent
from benchmarks.peers.peer import Setup
from mpspmd.request import ReplyRanks


class Answering(mpspmd.Worker):
    """Takes a request, does nothing with it and returns the answer."""

    def __init__(self, ctx: mpspmd.RankContext, answer: object) -> None:
        die_with_parent()
        super().__init__(ctx)
        self._answer = answer

    def take(self, request: object) -> object:
        return self._answer


class MpspmdEngine:
    """Engine.call: the request is an argument of a method, the answer what the method returns.

    So a message also carries the method's name and who replies, and it goes through everything that
    makes an engine: registered calls, deadlines, the status page, error handling.
    """

    name = "mpspmd-engine"
    version = mpspmd.__version__

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine: mpspmd.Engine | None = None

    def start(self) -> None:
        self._engine = engine = mpspmd.Engine(
            Answering, world_size=self._setup.ranks, args=(self._setup.answer,)
        )
        self._call = engine.call
        self._reply_ranks: ReplyRanks = "all" if self._setup.reply == "all" else 0

    @property
    def pids(self) -> Sequence[int]:
        return () if self._engine is None else self._engine.pids

    def round_trip(self, request: object) -> None:
        self._call("take", (request,), reply_ranks=self._reply_ranks)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
