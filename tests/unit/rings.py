"""Rings for the tests of the native module: segments of their own, without an engine."""

from __future__ import annotations

import dataclasses
import mmap
import os
import struct

from mpspmd._ring import Inbox, Ring, StatusPage, Writer
from mpspmd.transport.segment import Segment

CAPACITY = 1 << 16
MAX_RECORD = CAPACITY // 2 - 16
"""The longest message that goes in one record."""


@dataclasses.dataclass
class Scene:
    """One ring, its writer, and an inbox for each reader."""

    segment: Segment
    ring: Ring
    writer: Writer
    inboxes: list[Inbox]

    @property
    def inbox(self) -> Inbox:
        return self.inboxes[0]

    @property
    def data_offset(self) -> int:
        """Where the records begin in the segment."""
        return self.segment.size - self.ring.capacity

    def overwrite(self, offset: int, form: str, *values: int) -> None:
        """Writes what no writer writes."""
        os.pwrite(self.segment.fd, struct.pack(form, *values), offset)


def make_scene(n_readers: int = 1, capacity: int = CAPACITY) -> Scene:
    segment = Segment.create(Ring.segment_bytes(capacity, n_readers))
    Ring.format(segment.fd, capacity, n_readers)
    ring = Ring(segment.fd)
    # Each reader maps the ring for itself, as another process would.
    inboxes = [Inbox((Ring(segment.fd),), slot) for slot in range(n_readers)]
    return Scene(segment, ring, Writer(ring), inboxes)


def make_page(n_ranks: int) -> tuple[Segment, StatusPage]:
    segment = Segment.create(StatusPage.segment_bytes(n_ranks))
    StatusPage.format(segment.fd, n_ranks, 0, 2)
    return segment, StatusPage(segment.fd)


def payload_of(inbox: Inbox, timeout: float = 20.0) -> bytes:
    """The next message's payload, copied and released."""
    message = inbox.recv(timeout)
    assert message is not None
    payload = message[3]
    copy = bytes(payload)
    if isinstance(payload, memoryview):
        payload.release()
        inbox.release()
    return copy


def is_read(inbox: Inbox) -> bool:
    """Whether another thread is within a wait for a message. Else it would take what is there."""
    try:
        assert inbox.try_recv() is None
    except RuntimeError:
        return True
    return False


def is_used(writer: Writer) -> bool:
    """Whether another thread is within one of its methods."""
    try:
        writer.try_send()  # type: ignore[call-arg]
    except RuntimeError:
        return True
    except TypeError:
        return False
    raise AssertionError


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE
