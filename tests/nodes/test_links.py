"""Two links agree on every byte, whatever the connection between them drops; and a tap copies a ring."""

from __future__ import annotations

import os
import random
import struct
import time
from collections import deque

import msgspec
import pytest

from mpspmd import RuntimeConfig
from mpspmd._ring import Inbox, Ring, StatusPage, Tap, Writer
from mpspmd.bridge.link import AGAIN, BEAT, BadFrame, Link
from mpspmd.bridge.messages import Dying, Ended, Failed, FromRank, decode_end, decode_to_head
from mpspmd.bridge.node import USAGE, Node
from mpspmd.bridge.streams import MessageSink, MessageSource, RingSink, RingSource
from mpspmd.errors import ChannelClosed, ChannelCorrupt
from mpspmd.transport.channel import BridgeChannel, ChannelSegments
from mpspmd.transport.descriptor import Descriptor
from mpspmd.transport.segment import Segment

CAPACITY = 1 << 16
SESSION = b"session!"


class Rig:
    """A ring, and another one that gets its bytes."""

    def __init__(self) -> None:
        page = Segment.create(StatusPage.segment_bytes(1))
        StatusPage.format(page.fd, 1, 0, 2)
        self.page = StatusPage(page.fd)
        self.here, self.there = ring(), ring()
        self.writer = Writer(self.here)
        self.tap = Tap((self.here,), (0,), self.page)
        self.source = RingSource(self.tap, self.here, [0])
        self.sink = RingSink(Writer(self.there))
        self.inbox = Inbox((self.there,), 0)


def ring() -> Ring:
    segment = Segment.create(Ring.segment_bytes(CAPACITY, 1))
    Ring.format(segment.fd, CAPACITY, 1)
    return Ring(segment.fd)


def test_a_ring_continues_in_another_one_byte_by_byte() -> None:
    rig = Rig()
    rig.writer.send(1, 7, b"first")
    rig.writer.send(1, 8, b"second" * 100)
    assert rig.tap.wait((0,), 0)
    data = rig.tap.read(0, 0, CAPACITY)
    assert len(data) == rig.here.tail
    for index in range(len(data)):
        rig.sink.take(memoryview(data)[index : index + 1])
        assert (rig.inbox.try_recv() is not None) == (rig.there.tail == index + 1)
    assert rig.there.tail == rig.here.tail
    rig.tap.release(0, rig.here.tail)
    assert not rig.tap.wait((rig.here.tail,), 0)
    with pytest.raises(ValueError, match="must be from"):
        rig.tap.read(0, 0, 1)


def test_what_the_other_ring_has_no_space_for_waits_until_it_has() -> None:
    rig = Rig()
    sent = [bytes([number]) * 20_000 for number in range(3)]
    for message in sent:
        rig.writer.send(1, 1, message)
    data = rig.tap.read(0, 0, CAPACITY)
    rig.sink.take(memoryview(data))
    rig.tap.release(0, len(data))
    rig.writer.send(1, 1, sent[0])
    rig.sink.take(memoryview(rig.tap.read(0, len(data), CAPACITY)))
    assert rig.sink.waiting
    assert rig.sink.accepted < rig.sink.received
    for message in [*sent, sent[0]]:
        received = rig.inbox.recv(1)
        assert received is not None
        assert bytes(received[3]) == message
        received[3].release()
        rig.inbox.release()
        rig.sink.retry()
    assert not rig.sink.waiting


def test_bytes_that_are_no_records_are_refused_and_reach_no_reader() -> None:
    there = ring()
    writer = Writer(there)
    with pytest.raises(ChannelCorrupt):
        writer.append(struct.pack("<IHHQ", CAPACITY, 1, 0, 1))
    assert there.tail == 0


def test_bytes_for_a_ring_that_has_ended_are_dropped() -> None:
    rig = Rig()
    rig.writer.send(1, 1, b"late")
    rig.there.close()
    with pytest.raises(ChannelClosed):
        Writer(ring_that_is_closed()).append(b"x")
    rig.sink.take(memoryview(rig.tap.read(0, 0, 100)))
    assert rig.sink.accepted == rig.here.tail


def ring_that_is_closed() -> Ring:
    closed = ring()
    closed.close()
    return closed


class Connection:
    """One direction: loses all that is on its way when it breaks."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.is_up = True

    def send(self, frame: bytes) -> bool:
        if self.is_up:
            self.frames.append(frame)
        return self.is_up


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_repeated_or_reordered_whatever_breaks(seed: int) -> None:
    chance = random.Random(seed)
    rig, out, back = Rig(), Connection(), Connection()
    messages, received = MessageSource(), MessageSink(decode_to_head)
    sender = Link(SESSION, [messages, rig.source], [], out.send)
    receiver = Link(SESSION, [], [received, rig.sink], back.send)
    sent, told, got, heard, now = 0, 0, 0, 0, 0.0
    for turn in range(3000):
        quiet = turn > 2500
        if chance.random() < 0.02 and not quiet:
            for connection in (out, back):
                connection.is_up = not connection.is_up
                if not connection.is_up:
                    connection.frames.clear()
        elif quiet:
            out.is_up = back.is_up = True
        if not quiet:
            size = chance.choice([8, 100, 5_000])
            sent += rig.writer.try_send(1, sent + 1, bytes([sent % 256]) * size)
            if rig.writer.pending:
                rig.writer.abandon()
            if chance.random() < 0.1:
                messages.put(Dying(told))
                told += 1
        sender.pump()
        for link in (sender, receiver):
            if chance.random() < 0.1:
                now += 1
                link._asked_again = 0.0
                link.beat(now)
        for connection, link in ((out, receiver), (back, sender)):
            for _ in range(chance.randrange(4)):
                if connection.frames:
                    link.receive(connection.frames.popleft())
        rig.sink.retry()
        while chance.random() < 0.9 and (message := rig.inbox.try_recv()) is not None:
            got += 1
            assert message[2] == got
            assert set(bytes(message[3])) == {(got - 1) % 256}
            if isinstance(message[3], memoryview):
                message[3].release()
                rig.inbox.release()
        while (said := received.next()) is not None:
            assert said == Dying(heard)
            heard += 1
    assert (got, heard) == (sent, told)
    assert sent > 300
    assert messages.is_empty


def test_a_frame_has_only_new_acknowledgements_and_a_beat_repeats_those_that_were_lost() -> None:
    there, frames = Rig(), [deque[bytes](), deque[bytes]()]
    messages, idle = MessageSource(), [MessageSink(decode_to_head) for _ in range(20)]
    sender = Link(SESSION, [there.source], [MessageSink(decode_to_head)], lambda frame: True)
    alone, among_many = (
        Link(SESSION, [messages], sinks, lambda frame, to=to: not to.append(frame))
        for sinks, to in zip(([there.sink], [there.sink, *idle]), frames, strict=True)
    )
    there.writer.send(1, 1, b"request")
    there.sink.take(memoryview(there.tap.read(0, 0, CAPACITY)))
    sender.pump()
    messages.put(Dying(1))
    for link in (alone, among_many):
        link.pump()
    lost, with_many = (sent.pop() for sent in frames)
    assert len(with_many) == len(lost)
    messages.put(Dying(2))
    alone.pump()
    assert len(frames[0].pop()) < len(lost)
    assert sender._acked == [0]
    alone.beat(0.0)
    sender.receive(frames[0].pop())
    assert sender._acked == [there.here.tail]


def test_frames_of_another_session_are_dropped_and_damaged_ones_refused() -> None:
    rig = Rig()
    frames: list[bytes] = []
    sender = Link(b"another!", [rig.source], [], lambda frame: not frames.append(frame))
    receiver = Link(SESSION, [], [rig.sink], lambda frame: True)
    rig.writer.send(1, 1, b"secret")
    sender.pump()
    receiver.receive(frames[0])
    assert rig.there.tail == 0
    header = struct.Struct("<8sHH4xQ")
    positions = [header.pack(SESSION, what, 0, 0) + b"few" for what in (BEAT, AGAIN)]
    acknowledging = header.pack(SESSION, BEAT, 2, 0) + bytes(10)
    short = [b"", b"short", SESSION + frames[0][8:20], acknowledging]
    for frame in (*short, *positions, SESSION + b"\xff" * 40):
        with pytest.raises(BadFrame):
            receiver.receive(frame)
    assert rig.there.tail == 0


def test_damaged_status_lines_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    segments = ChannelSegments.create(2, RuntimeConfig())
    channel = BridgeChannel(segments, range(1, 2))
    node = Node(1, range(1, 2), channel, {})
    node.join("host", lambda frame: True, 3.0)
    assert node.link is not None
    whole = channel.status.line(0).copy() + USAGE.pack(1.0, b"sleeping")
    for lines in (whole[:10], whole[:-1], b"x" + whole, b"\xff" * len(whole)):
        node.link.lines = lines
        node.turn(time.monotonic(), channel.status)
    assert (len(caplog.records), node.usages) == (4, {})
    node.link.lines = whole
    node.turn(time.monotonic(), channel.status)
    assert node.usages == {1: (1, "sleeping", 1.0)}
    channel._liveness.close()
    segments.close()


def test_a_message_that_cannot_be_decoded_is_dropped_and_the_rest_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[bytes] = []
    source, sink = MessageSource(), MessageSink(decode_to_head)
    sender = Link(SESSION, [source], [], lambda frame: not sent.append(frame))
    receiver = Link(SESSION, [], [sink], lambda frame: True)
    for message in (Dying(1), Bad(2), Dying(3)):
        source.put(message)
    sender.pump()
    source.put(Dying(4))
    sender.pump()
    for frame in sent:
        receiver.receive(frame)
    assert [sink.next() for _ in range(4)] == [Dying(1), Dying(3), Dying(4), None]
    assert len(caplog.records) == 1
    assert sink.received == source.tail


class Bad(msgspec.Struct, tag_field="type", tag="of a later version"):
    rank: int


def test_a_text_that_is_not_utf_8_reaches_the_other_side() -> None:
    source, sink = MessageSource(), MessageSink(decode_to_head)
    source.put(Failed("no folder /\udcff"))
    sink.take(memoryview(source.read(0, 100)))
    assert sink.next() == Failed(r"no folder /\udcff")


def test_a_long_reason_does_not_stop_the_bridge() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    segments = ChannelSegments.create(2, RuntimeConfig())
    channel = BridgeChannel(segments, range(1, 2))
    with open(read, "rb") as pipe:
        Node(1, range(1, 2), channel, {1: Descriptor(write)}).end_all("ü" * 100_000, gone=False)
        assert decode_end(pipe.read()).reason.startswith("üüü")
    channel._liveness.close()
    segments.close()


def test_messages_survive_their_encoding() -> None:
    source, sink = MessageSource(), MessageSink(decode_to_head)
    messages = [Ended(3, 17, -9, "killed"), FromRank(b"x" * 200_000), Dying(1)]
    for message in messages:
        source.put(message)
    position = 0
    while position < source.tail:
        data = source.read(position, 1000)
        sink.take(memoryview(data))
        position += len(data)
        source.release(position)
    assert [sink.next() for _ in messages] == messages
