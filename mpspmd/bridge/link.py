"""Link: one end of what the head and another node say to each other. Nothing is lost, repeated or
reordered.

ZeroMQ may drop what it has when a connection breaks. So each frame says at which position of its stream its
bytes lie, and a link sends again what the other end has not got: see docs/explain/nodes.md.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

import msgspec

from mpspmd.bridge.messages import Greeting, decode_greeting
from mpspmd.bridge.streams import Sink, Source
from mpspmd.control.messages import encode

CHUNK_BYTES = 60 * 1024
"""The most bytes of a stream in one frame."""
MAX_FRAME_BYTES = 64 * 1024
"""No frame is larger; a peer that announces a larger one is disconnected before it has sent it."""
_WINDOW_BYTES = CHUNK_BYTES // 4
"""So much may be accepted before the other end is told."""
BEAT_S = 0.1
"""How often each end says how far it is, also when nothing else is to be said."""

BEAT, AGAIN, LINES = 0xFFFE, 0xFFFD, 0xFFFC
"""In place of a stream's number: a message of the link itself."""

_HEADER = struct.Struct("<8sHH4xQ")  # session, stream, number of acknowledgements, position
_ACK = struct.Struct("<HQ")  # stream, position: one for each acknowledgement, after the header
_GREETING = _HEADER.pack(bytes(8), 0xFFFF, 0, 0)
"""The header of a message from before there is a session."""

Send = Callable[[bytes], bool]


class BadFrame(Exception):
    """Bytes that no link of this version sends."""


def greeting(message: Greeting) -> bytes:
    """A frame with a message from before there is a session."""
    return _GREETING + encode(message)


def greeting_in(frame: bytes) -> Greeting | None:
    """The message in such a frame; None if it is another frame. BadFrame."""
    if len(frame) < _HEADER.size:
        raise BadFrame(f"{len(frame)} bytes")
    if not frame.startswith(_GREETING):
        return None
    try:
        return decode_greeting(frame[_HEADER.size :])
    except msgspec.DecodeError as error:
        raise BadFrame(str(error)) from error


class Link:
    """One thread at a time. `send` sends one frame, and returns False if there is no connection."""

    def __init__(
        self, session: bytes, sources: Sequence[Source], sinks: Sequence[Sink], send: Send
    ) -> None:
        self._session = session
        self._sources = sources
        self._sinks = sinks
        self._send = send
        self._sent = [0] * len(sources)
        self._acked = [0] * len(sources)
        self._told = [0] * len(sinks)
        """What the other end has been told that this one has accepted."""
        self._their_positions = struct.Struct(f"<{len(sinks)}Q")
        self._positions = struct.Struct(f"<{len(sources)}Q")
        self._asked_again = 0.0
        self._next_beat = 0.0
        self.heard = time.monotonic()
        """When the last frame came."""
        self.lines = b""
        """What the other end has said last in a LINES frame."""
        self._is_cut = False
        """The last frame could not be sent. The next frame that comes ends this."""

    def pump(self) -> None:
        """Sends what is there to be sent."""
        sent = self._sent
        for stream, source in enumerate(self._sources):
            tail = source.tail
            while sent[stream] < tail and not self._is_cut:
                data = source.read(sent[stream], CHUNK_BYTES)
                if self._put(stream, sent[stream], data):
                    sent[stream] += len(data)

    def is_beat_due(self, now: float) -> bool:
        """Whether it is time for one, or this end has accepted much that the other end doesn't know of."""
        return now >= self._next_beat or any(
            sink.accepted - told >= _WINDOW_BYTES
            for sink, told in zip(self._sinks, self._told, strict=True)
        )

    def beat(self, now: float, lines: bytes = b"") -> None:
        """Says how far this end is. `lines` are for the other end's status page."""
        self._next_beat = now + BEAT_S
        if lines:
            self._put(LINES, 0, lines)
        self._put(BEAT, 0, self._positions.pack(*self._sent))

    def receive(self, frame: bytes) -> None:
        """Takes a frame. BadFrame; frames of other sessions are dropped."""
        if len(frame) < _HEADER.size:
            raise BadFrame(f"{len(frame)} bytes")
        session, stream, n_acks, position = _HEADER.unpack_from(frame)
        if session != self._session:
            return
        data_at = _HEADER.size + n_acks * _ACK.size
        if len(frame) < data_at:
            raise BadFrame(f"{len(frame)} bytes with {n_acks} acknowledgements")
        self.heard = time.monotonic()
        self._is_cut = False
        for number, ack in _ACK.iter_unpack(frame[_HEADER.size : data_at]):
            self._acknowledge(number, ack)
        data = memoryview(frame)[data_at:]
        if stream < len(self._sinks):
            self._take(stream, position, data)
        elif stream == BEAT:
            self._compare(_unpack(self._their_positions, data))
        elif stream == AGAIN:
            self._go_back(_unpack(self._positions, data))
        elif stream == LINES:
            self.lines = bytes(data)
        else:
            raise BadFrame(f"stream {stream}")

    def _put(self, stream: int, position: int, data: bytes) -> bool:
        """Sends a frame with the acknowledgements that are new, so that it doesn't grow with the number of
        streams. A beat has all of them, because the connection may have lost earlier ones."""
        told, acks, news = self._told, b"", []
        for number, sink in enumerate(self._sinks):
            accepted = sink.accepted
            if accepted != told[number] or stream == BEAT:
                acks += _ACK.pack(number, accepted)
                news.append((number, accepted))
        if not self._send(_HEADER.pack(self._session, stream, len(news), position) + acks + data):
            self._is_cut = True
            return False
        for number, accepted in news:
            told[number] = accepted
        return True

    def _acknowledge(self, stream: int, position: int) -> None:
        if stream >= len(self._sources):
            raise BadFrame(f"an acknowledgement of stream {stream}")
        if position > self._sent[stream]:
            # This end has gone back after a break, and the other end had got more than was known.
            if position > self._sources[stream].tail:
                raise BadFrame(f"{position} of stream {stream} acknowledged")
            self._sent[stream] = position
        if position > self._acked[stream]:
            self._acked[stream] = position
            self._sources[stream].release(position)

    def _take(self, stream: int, position: int, data: memoryview) -> None:
        sink = self._sinks[stream]
        known = sink.received - position
        if known < 0:
            self._ask_again()
        elif known < len(data):
            sink.take(data[known:] if known else data)

    def _compare(self, theirs: tuple[int, ...]) -> None:
        """Frames come in order, so what was sent before a beat and isn't here is lost."""
        if any(sink.received < sent for sink, sent in zip(self._sinks, theirs, strict=True)):
            self._ask_again()

    def _ask_again(self) -> None:
        now = time.monotonic()
        if now - self._asked_again < BEAT_S:
            return  # the frames that follow a lost one all show the same loss
        self._asked_again = now
        received = [sink.received for sink in self._sinks]
        self._put(AGAIN, 0, self._their_positions.pack(*received))

    def _go_back(self, wanted: tuple[int, ...]) -> None:
        for stream, position in enumerate(wanted):
            if self._acked[stream] <= position < self._sent[stream]:
                self._sent[stream] = position
        self.pump()


def _unpack(positions: struct.Struct, data: memoryview) -> tuple[int, ...]:
    if len(data) != positions.size:
        raise BadFrame(f"{len(data)} bytes of positions")
    return positions.unpack(data)
