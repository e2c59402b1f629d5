"""The workers of the tests of what is seen from outside. Each rank imports this module."""

from __future__ import annotations

import ctypes
import os
import time

import torch
import torch.distributed as dist

import mpspmd


class Stepper(mpspmd.Worker):
    """Works for some milliseconds in each step; one rank may take longer."""

    def __init__(self, ctx: mpspmd.RankContext, reduces: bool = False) -> None:
        super().__init__(ctx)
        self.reduces = reduces
        if reduces:
            ctx.init_process_group("gloo")

    def execute_model(self, slow_rank: int, extra_s: float) -> int:
        time.sleep(0.002 + (extra_s if self.ctx.rank == slow_rank else 0))
        if self.reduces:
            with self.ctx.collective():
                dist.all_reduce(torch.ones(4))
        return self.ctx.rank

    def sleep_on(self, rank: int, seconds: float) -> None:
        if self.ctx.rank == rank:
            time.sleep(seconds)

    def reduce_without(self, rank: int) -> None:
        """One rank never joins the others."""
        if self.ctx.rank != rank:
            dist.all_reduce(torch.ones(4))

    def compute(self, path: str) -> None:
        """Until the file is there."""
        while not os.path.exists(path):
            pass

    def in_c(self, seconds: float) -> None:
        """Holds the interpreter's lock."""
        ctypes.PyDLL(None).sleep(int(seconds))

    def shutdown(self) -> None:
        if self.reduces:
            dist.destroy_process_group()
