"""The ring as Python sees it: sending, receiving, waiting and ending."""

from __future__ import annotations

import mmap
import resource
import threading
from typing import Any

import pytest
from rings import (
    CAPACITY,
    MAX_RECORD,
    Scene,
    is_read,
    is_used,
    make_page,
    make_scene,
    payload_of,
)

from mpspmd._ring import KIND_PACKED, Block, Inbox, Ring, Writer
from mpspmd.errors import ChannelClosed, ChannelError, ChannelPoisoned
from mpspmd.transport.segment import Segment

pytestmark = pytest.mark.timeout(30)

_ANY_KIND = 0xFFFF & ~KIND_PACKED  # all that is the sender's own


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class TestMessages:
    @pytest.mark.parametrize(
        "size",
        [
            *(0, 1, 7, 8, 9, 4096, 4097, CAPACITY // 4, CAPACITY, 3 * CAPACITY + 5),
            *(MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1),
        ],
    )
    def test_a_message_of_any_size_arrives_with_kind_and_tag(self, scene: Scene, size: int) -> None:
        data = pattern(size)
        for tag in (0, (1 << 64) - 1):
            sender = threading.Thread(target=scene.writer.send, args=(_ANY_KIND, tag, data))
            sender.start()
            message = scene.inbox.recv(20)
            sender.join()
            assert message is not None
            ring, kind, got_tag, payload = message
            assert (ring, kind, got_tag) == (0, _ANY_KIND, tag)
            assert bytes(payload) == data
            expected = Block if size > MAX_RECORD else bytes if size <= 4096 else memoryview
            assert type(payload) is expected
            if isinstance(payload, memoryview):
                payload.release()
                scene.inbox.release()

    def test_the_first_messages_find_their_pages_mapped(self) -> None:
        scene = make_scene(capacity=1024 * mmap.PAGESIZE)
        data = bytes(16 * mmap.PAGESIZE)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(32):
            scene.writer.send(1, 0, data)
            message = scene.inbox.recv(20)
            assert message is not None
            with message[3] as payload:
                assert bytes(payload[:: mmap.PAGESIZE]) == bytes(16)
            scene.inbox.release()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        scene.segment.close()
        assert faults < 256  # 512 pages were written, and as many read through another mapping

    def test_parts_arrive_as_one_message(self, scene: Scene) -> None:
        parts = [b"a", b"", bytearray(b"bc"), memoryview(b"xdefx")[1:-1], *[b"."] * 40]
        scene.writer.send(1, 0, parts)
        assert payload_of(scene.inbox) == b"abcdef" + b"." * 40

    def test_every_reader_gets_every_message_in_order(self) -> None:
        scene = make_scene(n_readers=8)
        for i in range(500):
            scene.writer.send(1, i, i.to_bytes(4, "little"))
            if i % 50 == 49:
                for inbox in scene.inboxes:
                    got = [payload_of(inbox) for _ in range(50)]
                    assert got == [k.to_bytes(4, "little") for k in range(i - 49, i + 1)]

    def test_an_inbox_of_several_rings_leaves_none_waiting(self) -> None:
        _, page = make_page(3)
        segments = [Segment.create(Ring.segment_bytes(CAPACITY, 1)) for _ in range(3)]
        for segment in segments:
            Ring.format(segment.fd, CAPACITY, 1)
        rings = tuple(Ring(segment.fd, data_bell=page) for segment in segments)
        inbox = Inbox(rings, 0)
        writers = [Writer(ring) for ring in rings]
        for tag in range(20):
            for writer in writers:
                writer.send(1, tag, b"x")
        order = [inbox.recv(5) for _ in range(60)]
        assert [message[0] for message in order if message] == [0, 1, 2] * 20
        threading.Timer(0.2, writers[2].send, (1, 7, b"late")).start()
        assert inbox.recv(20) == (2, 1, 7, b"late")

    def test_a_view_of_the_ring_must_be_released_before_the_next_message(
        self, scene: Scene
    ) -> None:
        scene.writer.send(1, 0, pattern(5000))
        scene.writer.send(1, 1, b"next")
        message = scene.inbox.recv()
        assert message is not None
        view = message[3]
        assert isinstance(view, memoryview)
        assert view.readonly
        part = view[10:20]
        with pytest.raises(RuntimeError, match="release"):
            scene.inbox.recv(0)
        for held in (part, view):
            with pytest.raises(BufferError, match="views of the record"):
                scene.inbox.release()
            assert len(held) in (10, 5000)
            part.release()
        assert view == pattern(5000)
        view.release()
        scene.inbox.release()
        scene.inbox.release()
        assert payload_of(scene.inbox) == b"next"

    def test_a_view_keeps_the_mapping_alive(self) -> None:
        scene = make_scene()
        scene.writer.send(1, 0, pattern(5000))
        message = scene.inbox.recv()
        assert message is not None
        view = message[3]
        scene.segment.close()
        del scene, message
        assert view == pattern(5000)

    @pytest.mark.parametrize(
        ("kind", "tag"), [(-1, 0), (1 << 16, 0), (1, -1), (1, 1 << 64), ("1", 0)]
    )
    def test_a_kind_or_tag_that_does_not_fit_is_refused(
        self, scene: Scene, kind: Any, tag: Any
    ) -> None:
        with pytest.raises((OverflowError, ValueError, TypeError)):
            scene.writer.send(kind, tag, b"")
        scene.writer.send(1, 1, b"usable")
        assert payload_of(scene.inbox) == b"usable"

    @pytest.mark.parametrize("parts", [None, 5, "text", (b"a",), [b"a", "text"], [None]])
    def test_parts_that_are_no_bytes_are_refused_and_let_go(self, scene: Scene, parts: Any) -> None:
        buffer = bytearray(b"x")
        with pytest.raises(TypeError):
            scene.writer.send(1, 1, [buffer, *parts] if isinstance(parts, list) else parts)
        buffer.append(0)  # BufferError if the writer still held it
        scene.writer.send(1, 1, b"usable")
        assert payload_of(scene.inbox) == b"usable"


class TestSpace:
    def test_without_space_try_send_says_so_and_resume_goes_on(self, scene: Scene) -> None:
        data = pattern(3 * CAPACITY)
        assert not scene.writer.try_send(1, 5, data)
        assert scene.writer.pending
        with pytest.raises(RuntimeError, match="under way"):
            scene.writer.try_send(1, 6, b"")
        while not scene.writer.resume():
            assert scene.inbox.try_recv() is None
            assert scene.writer.wait(None, 5)
        assert not scene.writer.pending
        assert payload_of(scene.inbox) == data
        with pytest.raises(RuntimeError, match="no message"):
            scene.writer.resume()

    def test_a_deadline_in_the_middle_of_a_message_harms_no_later_one(self, scene: Scene) -> None:
        with pytest.raises(TimeoutError):
            scene.writer.send(1, 1, pattern(3 * CAPACITY), 0.05)
        reader: list[bytes] = []
        thread = threading.Thread(target=lambda: reader.append(payload_of(scene.inbox)))
        thread.start()
        scene.writer.send(1, 2, b"good", 20)
        thread.join()
        assert reader == [b"good"]

    def test_an_abandoned_message_is_forgotten_and_its_parts_let_go(self, scene: Scene) -> None:
        data = bytearray(3 * CAPACITY)
        assert not scene.writer.try_send(1, 1, data)
        with pytest.raises(BufferError):
            data.append(0)
        scene.writer.abandon()
        data.append(0)
        assert scene.inbox.try_recv() is None
        scene.writer.send(1, 2, b"good", 20)
        assert payload_of(scene.inbox) == b"good"

    def test_a_full_ring_lets_the_writer_wait_until_the_slowest_has_read(self) -> None:
        scene = make_scene(n_readers=2)
        while scene.writer.try_send(1, 0, pattern(5000)):
            pass
        for _ in range(3):
            payload_of(scene.inboxes[0])
        assert not scene.writer.wait(None, 0.05)
        scene.writer.abandon()
        with pytest.raises(TimeoutError, match="no space"):
            scene.writer.send(1, 0, pattern(5000), 0.05)
        reader = threading.Timer(0.2, lambda: [payload_of(scene.inboxes[1]) for _ in range(8)])
        reader.start()
        scene.writer.send(1, 0, pattern(5000), 20)
        reader.join()

    def test_a_dead_reader_is_waited_for_no_longer(self) -> None:
        scene = make_scene(n_readers=2)
        threading.Timer(0.2, scene.ring.mark_dead, (1,)).start()
        reader = threading.Thread(target=payload_of, args=(scene.inboxes[0],))
        reader.start()
        scene.writer.send(1, 0, bytes(3 * CAPACITY), 20)
        reader.join()
        # What it would read next has been overwritten by now.
        with pytest.raises(ChannelError, match="marked dead"):
            scene.inboxes[1].recv(5)
        with pytest.raises(ValueError, match="2 readers"):
            scene.ring.mark_dead(2)

    def test_an_interrupt_ends_the_writers_wait(self, scene: Scene) -> None:
        assert not scene.writer.try_send(1, 0, bytes(3 * CAPACITY))
        threading.Timer(0.2, scene.writer.interrupt).start()
        assert scene.writer.wait(None, 20)
        assert not scene.writer.wait(None, 0.05)

    def test_the_writers_wait_ends_when_the_inbox_that_it_watches_has_something(self) -> None:
        _, page = make_page(1)
        segments = [Segment.create(Ring.segment_bytes(CAPACITY, 1)) for _ in range(2)]
        for segment in segments:
            Ring.format(segment.fd, CAPACITY, 1)
        requests = Writer(Ring(segments[0].fd, space_bell=page))
        replies = Inbox((Ring(segments[1].fd, data_bell=page),), 0)
        peer = Writer(Ring(segments[1].fd, data_bell=page))
        assert not requests.try_send(1, 0, bytes(3 * CAPACITY))
        assert not requests.wait(replies, 0.05)
        threading.Timer(0.2, peer.send, (1, 9, b"reply")).start()
        assert requests.wait(replies, 20)
        assert replies.try_recv() == (0, 1, 9, b"reply")


class TestEnds:
    def test_what_was_sent_before_the_close_is_read_before_it_is_seen(self, scene: Scene) -> None:
        scene.writer.send(1, 0, b"a")
        scene.writer.send(1, 1, pattern(5000))
        scene.ring.close()
        assert payload_of(scene.inbox) == b"a"
        assert payload_of(scene.inbox) == pattern(5000)
        for _ in range(2):
            with pytest.raises(ChannelClosed):
                scene.inbox.recv(5)
        with pytest.raises(ChannelClosed):
            scene.writer.send(1, 0, b"")

    def test_poison_beats_close_and_the_first_reason_stays(self, scene: Scene) -> None:
        scene.writer.send(1, 0, b"a")
        assert scene.ring.state == ("open", 0, 0)
        scene.ring.close()
        scene.ring.poison(7, 3)
        scene.ring.poison(8, 4)
        scene.ring.close()
        assert scene.ring.state == ("poisoned", 7, 3)
        assert payload_of(scene.inbox) == b"a"
        with pytest.raises(ChannelPoisoned) as caught:
            scene.inbox.recv(5)
        assert (caught.value.code, caught.value.rank) == (7, 3)
        assert "code 7, rank 3" in str(caught.value)
        with pytest.raises(ChannelPoisoned):
            scene.writer.try_send(1, 0, b"")

    @pytest.mark.parametrize("end", ["close", "poison"])
    def test_an_end_ends_every_wait_at_once(self, scene: Scene, eventually: Any, end: str) -> None:
        errors: list[BaseException] = []

        def wait_for(action: Any) -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        full = make_scene()
        threads = [
            threading.Thread(target=wait_for, args=(action,))
            for action in (
                lambda: scene.inbox.recv(),
                lambda: full.writer.send(1, 0, bytes(3 * CAPACITY)),
            )
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: is_read(scene.inbox) and is_used(full.writer), "both threads wait")
        for ring in (scene.ring, full.ring):
            ring.close() if end == "close" else ring.poison(1, -1)
        for thread in threads:
            thread.join(20)
        expected = ChannelClosed if end == "close" else ChannelPoisoned
        assert [type(error) for error in errors] == [expected] * 2

    def test_an_inbox_goes_on_until_the_last_of_its_rings_is_closed(self) -> None:
        _, page = make_page(2)
        segments = [Segment.create(Ring.segment_bytes(CAPACITY, 1)) for _ in range(2)]
        for segment in segments:
            Ring.format(segment.fd, CAPACITY, 1)
        rings = tuple(Ring(segment.fd, data_bell=page) for segment in segments)
        inbox = Inbox(rings, 0)
        rings[0].close()
        Writer(rings[1]).send(1, 0, b"x")
        assert inbox.recv(5) == (1, 1, 0, b"x")
        with pytest.raises(TimeoutError):
            inbox.recv(0.05)
        rings[1].close()
        with pytest.raises(ChannelClosed):
            inbox.recv(5)
