"""Broadcast: mpspmd's channels with raw bytes. Ranks reply with the time at which they got a message."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import psutil

from benchmarks.rank_processes import RankProcesses
from mpspmd._ring import Inbox
from mpspmd.config import RuntimeConfig
from mpspmd.transport.channel import ChannelSegments, EngineChannel, RankChannel
from mpspmd.wire import KIND_REPLY, KIND_REQUEST

_END_TIMEOUT_S = 1.0


class Broadcast:
    """Main thread of the engine's process. Ranks sleep as soon as they wait."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._processes = RankProcesses("mpspmd")
        self._segments: ChannelSegments | None = None
        self._shared_bytes = 0

    def start(self) -> None:
        config = RuntimeConfig.from_env(wait="park")
        self._segments = segments = ChannelSegments.create(self._ranks, config)
        self._shared_bytes = segments.size
        self._channel = EngineChannel(segments)
        self._processes.start(_serve, [(segments,)] * self._ranks)
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, payload: bytes) -> None:
        self._channel.requests.send(KIND_REQUEST, 1, payload)

    def arrivals(self) -> list[int]:
        """When each rank got the last message, by time.perf_counter_ns(), in any order."""
        return [
            int.from_bytes(_receive(self._channel.replies)[1], "little") for _ in range(self._ranks)
        ]

    def memory(self) -> dict[str, int]:
        """Bytes of shared memory in all, and of private memory of a rank, Python included."""
        private = [psutil.Process(pid).memory_full_info().uss for pid in self.pids]
        return {
            "shared_bytes": self._shared_bytes,
            "private_bytes": round(statistics.median(private)),
        }

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        if self._segments is not None:
            self._segments.close()

    def _ask_to_end(self) -> None:
        self._channel.requests.send(KIND_REQUEST, 0, b"", _END_TIMEOUT_S)


def _serve(rank: int, link: Connection, segments: ChannelSegments) -> None:
    channel = RankChannel(segments, rank)
    segments.close()
    link.send(None)
    while _receive(channel.requests)[0]:
        now = time.perf_counter_ns()
        channel.replies.send(KIND_REPLY, 1, now.to_bytes(8, "little"))


def _receive(inbox: Inbox) -> tuple[int, bytes]:
    """The tag and a copy of the payload."""
    message = inbox.recv()
    if message is None:
        raise InterruptedError("the wait for a message was interrupted")
    _, _, tag, payload = message
    data = bytes(payload)
    if isinstance(payload, memoryview):
        payload.release()
        inbox.release()
    return tag, data
