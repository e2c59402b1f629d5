"""A ring whose bytes somebody else has written over, and its reader."""

from __future__ import annotations

import mmap

from mpspmd._ring import KIND_PACKED, Inbox, Ring, Writer
from mpspmd.errors import ChannelError
from mpspmd.transport.segment import Segment

_CAPACITY = 1 << 16
_CONTROL_BYTES = 4096  # before the data
_RECORD_HEAD = 16
_FILLER = 8192  # a record of this size moves the tail to where the reader ends
_PACKED = (
    None,
    ("echo", (1, -2.5, True), {}, "all"),
    b"x" * 300,
    (("nested", ()), "\N{SNOWMAN}"),
    [1, [2.5], {"a": [1], (1, "b"): {}}],
)
_SIZES = ((0, 1, 17), (300, 0, 5000), (17, 40000), (40000, 40000), (1, 1, 1, 1), (5000,))


class Records:
    """Bytes from the ring's start to its tail. Refused: the reader has noticed."""

    def __init__(self) -> None:
        self._segment = Segment.create(Ring.segment_bytes(_CAPACITY, 1))
        self._memory = mmap.mmap(self._segment.fd, self._segment.size)

    def close(self) -> None:
        self._memory.close()
        self._segment.close()

    def inputs(self) -> list[bytes]:
        found = []
        for sizes in _SIZES:
            ring, writer = self._format()
            for tag, size in enumerate(sizes):
                if not writer.try_send(tag % 4, tag, b"x" * size):
                    break  # full; the fragments that are there belong to a message without an end
            found.append(self._written(ring))
        ring, writer = self._format()
        for tag, value in enumerate(_PACKED):
            writer.send_packed(1, tag, value)
        return [*found, self._written(ring)]

    def _written(self, ring: Ring) -> bytes:
        return self._memory[_CONTROL_BYTES : _CONTROL_BYTES + ring.tail]

    def refuses(self, data: bytes) -> bool:
        ring, writer = self._format()
        data = data[:_CAPACITY]
        while (left := len(data) - ring.tail) > 0:
            writer.send(0, 0, bytes(max(0, min(left, _FILLER) - _RECORD_HEAD)))
        self._memory[_CONTROL_BYTES : _CONTROL_BYTES + len(data)] = data
        return _read_all(Inbox((ring,), 0))

    def _format(self) -> tuple[Ring, Writer]:
        self._memory[:_CONTROL_BYTES] = bytes(_CONTROL_BYTES)
        Ring.format(self._segment.fd, _CAPACITY, 1)
        ring = Ring(self._segment.fd)
        return ring, Writer(ring)


def _read_all(inbox: Inbox) -> bool:
    try:
        while (message := inbox.try_recv()) is not None:
            _, kind, _, payload = message
            repr(payload) if kind & KIND_PACKED else bytes(payload)
            if isinstance(payload, memoryview):
                payload.release()
                inbox.release()
    except (ChannelError, MemoryError):
        # A first fragment may promise any length: there may not be the memory.
        return True
    return False
