"""mpspmd's channels with raw bytes, without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection

import mpspmd
from benchmarks.peers.peer import Peer, Setup, timed
from benchmarks.rank_processes import RankProcesses
from mpspmd._ring import Inbox
from mpspmd.config import RuntimeConfig
from mpspmd.transport.channel import ChannelSegments, EngineChannel, RankChannel
from mpspmd.wire import KIND_REPLY, KIND_REQUEST

_LAST = 0  # the tag of the message that ends a rank's loop
_END_TIMEOUT_S = 1.0


class MpspmdRaw(Peer):
    """A reply is one byte. A message isn't copied out of the ring."""

    name = "mpspmd-raw"
    version = mpspmd.__version__

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._n_replies = len(setup.repliers)
        self._segments: ChannelSegments | None = None

    def start(self) -> None:
        self._segments = ChannelSegments.create(self._setup.ranks, RuntimeConfig.from_env())
        self._channel = channel = EngineChannel(self._segments)
        self._send, self._replies = channel.requests.send, channel.replies
        self._processes.start(_serve, [(self._setup, self._segments)] * self._setup.ranks)
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        self._send(KIND_REQUEST, 1, request)  # type: ignore[arg-type]  # this peer's requests are bytes

    def receive(self) -> list[object]:
        replies: list[object] = []  # a comprehension would take a tenth of a round trip longer
        for _ in range(self._n_replies):
            replies.append(_receive(self._replies))
        return replies

    def time_round_trips(self, request: object, messages: int, limit_ns: int) -> list[int]:
        """Like Peer's, but one loop around the ring's own two calls, without the methods above, which would
        take a third of the time. `c-pingpong`, with which this is compared, has such a loop too.
        """
        send, recv, replies = self._send, self._replies.recv, range(self._n_replies)
        taken: list[int] = []
        for _ in timed(taken, messages, limit_ns):
            send(KIND_REQUEST, 1, request)  # type: ignore[arg-type]
            for _ in replies:
                recv()  # such a short message needs no release
        return taken

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        if self._segments is not None:
            self._segments.close()

    def _ask_to_end(self) -> None:
        self._send(KIND_REQUEST, _LAST, b"", _END_TIMEOUT_S)


def _serve(rank: int, link: Connection, setup: Setup, segments: ChannelSegments) -> None:
    channel = RankChannel(segments, rank)
    segments.close()
    replies = rank in setup.repliers
    requests, send = channel.requests, channel.replies.send
    link.send(None)
    while True:  # CPython 3.11 doesn't specialize a loop with a condition
        if _receive(requests) == _LAST:
            return
        if replies:
            send(KIND_REPLY, 1, b"\0")


def _receive(inbox: Inbox) -> int:
    """The tag."""
    message = inbox.recv()
    if message is None:
        raise InterruptedError("the wait for a message was interrupted")
    _, _, tag, payload = message
    if type(payload) is memoryview:
        payload.release()
        inbox.release()
    return tag
