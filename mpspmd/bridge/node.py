"""Node: another node, as the head's bridge knows it."""

from __future__ import annotations

import logging
import os
import struct

import msgspec

from mpspmd._ring import StatusPage
from mpspmd.bridge.link import BEAT_S, Link, Send
from mpspmd.bridge.messages import Ended, EndOfRank, NodeGone, ToHead, decode_to_head
from mpspmd.bridge.silence import Silence
from mpspmd.bridge.streams import MessageSink, MessageSource, RingSink, RingSource
from mpspmd.control.messages import encode
from mpspmd.transport.channel import BridgeChannel
from mpspmd.transport.descriptor import Descriptor

logger = logging.getLogger(__name__)

USAGE = struct.Struct("<d16s")
"""CPU time in seconds, and the process's state: it follows each line of a LINES frame."""
_MAX_REASON = 15_000
"""In characters. Nobody may read the pipe yet, and it holds 64 KiB."""


class Node:
    """All calls need the bridge's lock."""

    link: Link
    """From `join` on."""

    def __init__(
        self, number: int, ranks: range, channel: BridgeChannel, ends: dict[int, Descriptor]
    ) -> None:
        self.number = number
        self.ranks = ranks
        self._channel = channel
        self._ends = ends
        self._indexes = [rank - channel.first_rank for rank in ranks]
        self.left = set(ranks)
        """The ranks whose end the engine hasn't been told of."""
        self.host = ""
        self.session = b""
        self.n_ready = 0
        """How many of its ranks have made their workers."""
        self.is_linked = False
        """It has joined, and is not lost."""
        self.has_said_bye = False
        self.usages: dict[int, tuple[int, str, float]] = {}
        self.messages = MessageSource()
        """What is to be sent to it."""
        self.received: MessageSink[ToHead] = MessageSink(decode_to_head)
        self._sinks: list[RingSink] = []

    def join(self, host: str, send: Send, timeout_s: float) -> None:
        """The node takes part from now on. After a silence of `timeout_s` it is lost."""
        self.host, self.session, self.is_linked = host, os.urandom(8), True
        channel = self._channel
        self._sinks = [RingSink(channel.replies[rank]) for rank in self.ranks]
        self.link = Link(
            self.session,
            [self.messages, RingSource(channel.tap, channel.request_ring, self._indexes)],
            [self.received, *self._sinks],
            send,
        )
        # The last frame came up to one beat before the node fell silent.
        self._silence = Silence(f"node {self.number} ({host})", timeout_s - BEAT_S)

    @property
    def is_ready(self) -> bool:
        return self.n_ready == len(self.ranks)

    @property
    def is_done(self) -> bool:
        """Nothing more is to be told to the engine, nor to this node."""
        if not self.is_linked:
            return not self.left
        return not self.left and self.messages.is_empty and self.has_said_bye

    @property
    def is_waiting(self) -> bool:
        """Replies have come for which there is no space yet."""
        return any(sink.waiting for sink in self._sinks)

    def receive(self, frame: bytes) -> bool:
        """Takes a frame. Returns whether the bridge's main thread has something to do now. BadFrame."""
        self.link.receive(frame)
        return bool(self.received.messages) or self.is_waiting

    def turn(self, now: float, status: StatusPage) -> None:
        """What is due from time to time."""
        for sink in self._sinks:
            sink.retry()
        if self.link.is_beat_due(now):
            self.link.beat(now)
        self.link.pump()
        lines, self.link.lines = self.link.lines, b""
        if lines:
            try:
                self._show(lines, status)
            except (ValueError, struct.error) as error:
                logger.warning("dropped status lines of node %d: %s", self.number, error)

    def _show(self, lines: bytes, status: StatusPage) -> None:
        size = len(lines) // len(self.ranks)
        for number, rank in enumerate(self.ranks):
            line = lines[number * size : (number + 1) * size]
            cpu_s, state = USAGE.unpack(line[-USAGE.size :])
            if rank in self.left:
                status.line(rank).paste(line[: -USAGE.size], self.number)
                self.usages[rank] = (rank, state.rstrip(b"\0").decode(), cpu_s)

    def is_silent(self) -> bool:
        """Whether it has been silent for too long. Ask once a turn."""
        return self._silence.is_too_long(self.link)

    def end_rank(self, end: Ended) -> None:
        """Tells the engine how a rank has ended, once."""
        if end.rank in self.left:
            self.left.discard(end.rank)
            self._tell_engine(end.rank, end)

    def end_all(self, reason: str, *, gone: bool) -> None:
        """Tells the engine that all ranks that are left have ended: their node is gone, or never came."""
        for rank in sorted(self.left):
            end = NodeGone(reason) if gone else Ended(rank, 0, None, reason)
            self._tell_engine(rank, end)
        self.left.clear()

    def _tell_engine(self, rank: int, end: EndOfRank) -> None:
        end = msgspec.structs.replace(end, reason=end.reason[:_MAX_REASON])
        pipe = self._ends[rank]
        try:
            os.write(pipe.fd, encode(end))
        except OSError:
            pass  # the engine is gone
        finally:
            pipe.close()
