"""Streams: the two ends of what a link copies, as bytes with positions that only grow.

A position counts the bytes of a stream from its beginning. A ring's cursors are such positions.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from mpspmd._ring import Ring, Tap, Writer
from mpspmd.control.messages import Message, encode
from mpspmd.errors import ChannelError
from mpspmd.notice import notice

logger = logging.getLogger(__name__)

_LENGTH = struct.Struct("<I")
_Received = TypeVar("_Received")


class RingSource:
    """The records of one ring, of which the tap holds one reader's slot or several."""

    def __init__(self, tap: Tap, ring: Ring, indexes: Sequence[int]) -> None:
        self._tap = tap
        self._ring = ring
        self._indexes = indexes

    @property
    def tail(self) -> int:
        return self._ring.tail

    def read(self, position: int, limit: int) -> bytes:
        """Up to `limit` bytes from there on."""
        return self._tap.read(self._indexes[0], position, limit)

    def release(self, position: int) -> None:
        """Nobody will ask for bytes before this position any more."""
        for index in self._indexes:
            self._tap.release(index, position)


class RingSink:
    """Bytes for a ring. What doesn't fit waits here, and the sender doesn't send more than a ring holds."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.waiting: deque[memoryview] = deque()
        self.received = self.accepted = writer.position
        """The position up to which bytes have come, and the one up to which the sender may forget them."""

    def take(self, data: memoryview) -> None:
        self.received += len(data)
        self.waiting.append(data)
        self.retry()

    def retry(self) -> None:
        """Writes what there is space for. When the ring has ended, what comes is dropped."""
        waiting = self.waiting
        try:
            while waiting:
                data = waiting.popleft()
                taken = self._writer.append(data)
                self.accepted += taken
                if taken < len(data):
                    waiting.appendleft(data[taken:])
                    return
        except ChannelError:
            waiting.clear()
            self.accepted = self.received


class MessageSource:
    """Control messages, as bytes of a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._released = self.tail = 0

    def put(self, message: Message) -> None:
        data = encode(message)
        self._bytes += _LENGTH.pack(len(data)) + data
        self.tail = self._released + len(self._bytes)

    @property
    def is_empty(self) -> bool:
        """Whether the other side has all of them."""
        return not self._bytes

    def read(self, position: int, limit: int) -> bytes:
        begin = position - self._released
        return bytes(self._bytes[begin : begin + limit])

    def release(self, position: int) -> None:
        del self._bytes[: position - self._released]
        self._released = position


class MessageSink(Generic[_Received]):
    """Makes messages of the bytes again. `next` returns those that are complete."""

    def __init__(self, decode: Callable[[bytes], _Received]) -> None:
        self._decode = decode
        self._bytes = bytearray()
        self.messages: deque[_Received] = deque()
        self.received = self.accepted = 0

    def take(self, data: memoryview) -> None:
        self.received = self.accepted = self.received + len(data)
        self._bytes += data
        begin = 0
        while len(self._bytes) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes, begin)
            end = begin + _LENGTH.size + length
            if len(self._bytes) < end:
                break
            try:
                self.messages.append(self._decode(bytes(self._bytes[begin + _LENGTH.size : end])))
            except msgspec.DecodeError as error:
                notice(logger.warning, "dropped a message of %d bytes: %s", length, error)
            begin = end
        del self._bytes[:begin]

    def next(self) -> _Received | None:
        return self.messages.popleft() if self.messages else None


Source: TypeAlias = RingSource | MessageSource
"""What is to be sent. It keeps all bytes from the last released position on, up to its `tail`."""
Sink: TypeAlias = RingSink | MessageSink[Any]
"""What is received."""
