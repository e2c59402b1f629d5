"""Ray's actor calls: one call of each actor's method for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from benchmarks.peers.peer import Peer, Setup
from benchmarks.peers.ray_cluster import VERSION, RayCluster, start_ranks


class RayActor(Peer):
    """Every rank replies to each request, whatever the setup says."""

    name = "ray-actor"
    version = VERSION

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._ranks: list[Any] = []
        self._pids: list[int] = []
        self._sent: list[Any] = []
        self._joined = False

    def start(self) -> None:
        RayCluster.join()
        self._joined = True
        self._ranks, self._pids = start_ranks(self._setup)

    @property
    def pids(self) -> Sequence[int]:
        return self._pids

    def send(self, request: object) -> None:
        self._sent.extend(rank.take.remote(request) for rank in self._ranks)

    def receive(self) -> list[object]:
        replies: list[object] = ray.get(self._sent)
        self._sent.clear()
        return replies[-self._setup.ranks :]

    def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        if self._joined:
            RayCluster.leave()
