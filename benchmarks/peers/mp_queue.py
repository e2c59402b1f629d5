"""multiprocessing.Queue: one to each rank, and one from all of them."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue

from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses


class MpQueue(Peer):
    """A thread of the sending process pickles and writes what is put into a queue."""

    name = "mp-queue"
    version = platform.python_version()

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._requests: list[Queue[object]] = []

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._replies: Queue[object] = context.Queue()
        self._requests = [context.Queue() for _ in range(self._setup.ranks)]
        self._processes.start(
            _serve, [(self._setup, requests, self._replies) for requests in self._requests]
        )
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        for queue in self._requests:
            queue.put(request)

    def receive(self) -> list[object]:
        return [self._replies.get() for _ in self._setup.repliers]

    def close(self) -> None:
        self._processes.stop(lambda: self.send(END))
        for queue in self._requests:
            queue.close()
            queue.cancel_join_thread()


def _serve(
    rank: int, link: Connection, setup: Setup, requests: Queue[object], replies: Queue[object]
) -> None:
    respond = setup.responder(rank)
    link.send(None)
    while (request := requests.get()) is not END:
        if (reply := respond(request)) is not SILENT:
            replies.put(reply)
