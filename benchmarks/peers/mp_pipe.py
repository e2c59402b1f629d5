"""multiprocessing.Pipe, one a rank."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Sequence
from multiprocessing.connection import Connection

from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses


class MpPipe(Peer):
    """The request goes to each rank in turn, then the replies are read in turn."""

    name = "mp-pipe"
    version = platform.python_version()

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._pipes: list[Connection] = []
        self._repliers: list[Connection] = []

    def start(self) -> None:
        theirs: list[Connection] = []
        for _ in range(self._setup.ranks):
            ours, its = multiprocessing.Pipe()
            self._pipes.append(ours)
            theirs.append(its)
        self._processes.start(_serve, [(self._setup, end) for end in theirs])
        for end in theirs:
            end.close()
        self._processes.reports()
        self._repliers = [self._pipes[rank] for rank in self._setup.repliers]

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        for pipe in self._pipes:
            pipe.send(request)

    def receive(self) -> list[object]:
        return [pipe.recv() for pipe in self._repliers]

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        for pipe in self._pipes:
            pipe.close()

    def _ask_to_end(self) -> None:
        for pipe in self._pipes:
            pipe.send(END)


def _serve(rank: int, link: Connection, setup: Setup, pipe: Connection) -> None:
    respond = setup.responder(rank)
    link.send(None)
    while (request := pipe.recv()) is not END:
        if (reply := respond(request)) is not SILENT:
            pipe.send(reply)
