"""Ray's compiled graph: one input to a method of each actor, all their outputs together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

# Seconds; read when Ray is imported. Long, because ranks are paused while others are measured.
os.environ.setdefault("RAY_CGRAPH_get_timeout", "100000")
os.environ.setdefault("RAY_CGRAPH_submit_timeout", "100000")

import ray
from ray.dag import InputNode, MultiOutputNode

from benchmarks.peers.peer import Peer, Setup
from benchmarks.peers.ray_cluster import VERSION, RayCluster, start_ranks


class RayGraph(Peer):
    """Every rank replies to each request, whatever the setup says."""

    name = "ray-graph"
    version = VERSION

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._graph: Any = None
        self._ranks: list[Any] = []
        self._pids: list[int] = []
        self._sent: list[Any] = []
        self._joined = False

    def start(self) -> None:
        RayCluster.join()
        self._joined = True
        self._ranks, self._pids = start_ranks(self._setup)
        with InputNode() as request:
            replies = MultiOutputNode([rank.take.bind(request) for rank in self._ranks])
        self._graph = replies.experimental_compile(_max_inflight_executions=self._setup.every + 1)

    @property
    def pids(self) -> Sequence[int]:
        return self._pids

    def send(self, request: object) -> None:
        self._sent.append(self._graph.execute(request))

    def receive(self) -> list[object]:
        for sent in self._sent:
            replies: list[object] = ray.get(sent)
        self._sent.clear()
        return replies

    def close(self) -> None:
        if self._graph is not None:
            self._graph.teardown()
        for rank in self._ranks:
            ray.kill(rank)
        if self._joined:
            RayCluster.leave()
