"""torch.distributed on gloo: broadcast_object_list to the ranks, gather_object from them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses

_TIMEOUT = timedelta(hours=1)  # long, because ranks are paused while others are measured


class Gloo(Peer):
    """The engine is member 0 of a group of `ranks` + 1. All ranks take part in each gather."""

    name = "gloo"
    version = torch.__version__

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name, preload=__name__)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._joined = False

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-gloo-")
        store = str(Path(self._folder.name, "store"))
        self._processes.start(_serve, [(self._setup, store)] * self._setup.ranks)
        _join(store, self._setup, 0)
        self._joined = True
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        dist.broadcast_object_list([request], src=0)

    def receive(self) -> list[object]:
        gathered: list[object] = [None] * (self._setup.ranks + 1)
        dist.gather_object(None, gathered, dst=0)
        return [gathered[rank + 1] for rank in self._setup.repliers]

    def close(self) -> None:
        self._processes.stop(lambda: self.send(END))
        if self._joined:
            dist.destroy_process_group()
        if self._folder is not None:
            self._folder.cleanup()


def _serve(rank: int, link: Connection, setup: Setup, store: str) -> None:
    torch.set_num_threads(1)
    _join(store, setup, rank + 1)
    respond = Setup(setup.ranks, "all", setup.answer, setup.every, setup.timed).responder(rank)
    link.send(None)
    box: list[object] = [None]
    while True:
        dist.broadcast_object_list(box, src=0)
        if (request := box[0]) is END:
            return
        if (reply := respond(request)) is not SILENT:
            dist.gather_object(reply, None, dst=0)


def _join(store: str, setup: Setup, member: int) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        world_size=setup.ranks + 1,
        rank=member,
        timeout=_TIMEOUT,
    )
