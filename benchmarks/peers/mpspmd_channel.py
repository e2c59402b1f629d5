"""mpspmd's request and reply channels with its object codec, without an Engine."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import mpspmd
from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses
from mpspmd._ring import Inbox
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.config import RuntimeConfig
from mpspmd.transport.channel import ChannelSegments, EngineChannel, RankChannel
from mpspmd.wire import KIND_OUT_OF_BAND, KIND_PACKED, KIND_REPLY, KIND_REQUEST

_END_TIMEOUT_S = 1.0


class MpspmdChannel(Peer):
    """One ring of requests that all ranks read, one ring of replies from each."""

    name = "mpspmd"
    version = mpspmd.__version__
    settings: ClassVar[dict[str, Any]] = {}
    """Settings of RuntimeConfig, which override the MPSPMD_* variables."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._encoder = ObjectEncoder()
        self._n_replies = len(setup.repliers)
        self._segments: ChannelSegments | None = None
        self._step = 0

    def start(self) -> None:
        config = RuntimeConfig.from_env(**self.settings)
        self._segments = ChannelSegments.create(self._setup.ranks, config)
        self._channel = channel = EngineChannel(self._segments)
        self._requests, self._replies = channel.requests, channel.replies
        self._processes.start(_serve, [(self._setup, self._segments)] * self._setup.ranks)
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        self._step += 1
        self._encoder.send(self._requests, KIND_REQUEST, self._step, request)

    def receive(self) -> list[object]:
        replies: list[object] = []  # a comprehension would take a tenth of a round trip longer
        for _ in range(self._n_replies):
            _, reply = _receive(self._replies)
            replies.append(reply)
        return replies

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        if self._segments is not None:
            self._segments.close()

    def _ask_to_end(self) -> None:
        self._requests.send_packed(KIND_REQUEST, 0, END, _END_TIMEOUT_S)


class MpspmdSpin(MpspmdChannel):
    name = "mpspmd-spin"
    settings: ClassVar[dict[str, Any]] = {"wait": "spin"}


class MpspmdYield(MpspmdChannel):
    name = "mpspmd-yield"
    settings: ClassVar[dict[str, Any]] = {"wait": "yield"}


class MpspmdPark(MpspmdChannel):
    name = "mpspmd-park"
    settings: ClassVar[dict[str, Any]] = {"wait": "park"}


def _serve(rank: int, link: Connection, setup: Setup, segments: ChannelSegments) -> None:
    channel = RankChannel(segments, rank)
    segments.close()
    encoder = ObjectEncoder()
    respond = setup.responder(rank)
    link.send(None)
    while True:
        step, request = _receive(channel.requests)
        if request is END:
            return
        if (reply := respond(request)) is not SILENT:
            encoder.send(channel.replies, KIND_REPLY, step, reply)


def _receive(inbox: Inbox) -> tuple[int, object]:
    """The step and the object. The record in the ring is free again when this returns."""
    message = inbox.recv()
    if message is None:
        raise InterruptedError("the wait for a message was interrupted")
    _, kind, step, payload = message
    if kind & KIND_PACKED:
        return step, payload
    try:
        return step, decode(payload, bool(kind & KIND_OUT_OF_BAND))
    finally:
        if type(payload) is memoryview:
            payload.release()
            inbox.release()
