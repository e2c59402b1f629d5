"""ZeroMQ PAIR sockets over ipc://, one pair a rank, with pickled objects."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from multiprocessing.connection import Connection

import zmq

from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses
from benchmarks.signals import uninterrupted

_PICKLE = 5
_END_TIMEOUT_MS = 1000


class ZmqIpc(Peer):
    """The request goes to each rank in turn, then the replies are read in turn."""

    name = "zmq-ipc"
    version = zmq.__version__

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._repliers: list[zmq.Socket[bytes]] = []

    def start(self) -> None:
        # Abstract addresses (the @) have no files that could be left behind.
        prefix = f"ipc://@channel-latency-{secrets.token_hex(16)}"
        addresses = [f"{prefix}-{rank}" for rank in range(self._setup.ranks)]
        with uninterrupted():  # a context waits for ever for a socket that it can't close
            self._context = zmq.Context()
            for address in addresses:
                socket = self._context.socket(zmq.PAIR)
                self._sockets.append(socket)
                socket.bind(address)
        self._processes.start(_serve, [(self._setup, address) for address in addresses])
        self._processes.reports()
        for socket in self._sockets:
            socket.recv_pyobj()  # the rank has connected
        self._repliers = [self._sockets[rank] for rank in self._setup.repliers]

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        for socket in self._sockets:
            socket.send_pyobj(request, protocol=_PICKLE)

    def receive(self) -> list[object]:
        return [socket.recv_pyobj() for socket in self._repliers]

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        if self._context is not None:
            self._context.destroy(linger=0)

    def _ask_to_end(self) -> None:
        for socket in self._sockets:
            socket.sndtimeo = _END_TIMEOUT_MS
            socket.send_pyobj(END, protocol=_PICKLE)


def _serve(rank: int, link: Connection, setup: Setup, address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.connect(address)
        respond = setup.responder(rank)
        socket.send_pyobj(None)
        link.send(None)
        while (request := socket.recv_pyobj()) is not END:
            if (reply := respond(request)) is not SILENT:
                socket.send_pyobj(reply, protocol=_PICKLE)
