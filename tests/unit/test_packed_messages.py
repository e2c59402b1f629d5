"""Plain values through the ring: packed into it, and made anew from it."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from rings import CAPACITY, MAX_RECORD, Scene, make_page, make_scene
from test_pack import NOT_PLAIN, PLAIN, types

from mpspmd._ring import KIND_PACKED, Block, Writer, pack
from mpspmd.codec.objects import decode
from mpspmd.errors import ChannelClosed, DecodeError

pytestmark = pytest.mark.timeout(30)


def received(scene: Scene) -> tuple[int, int, Any]:
    """kind, tag, payload; nothing of it is left in the ring."""
    message = scene.inbox.recv(20)
    assert message is not None
    _, kind, tag, payload = message
    if isinstance(payload, memoryview):
        copy = bytes(payload)
        payload.release()
        scene.inbox.release()
        payload = copy
    return kind, tag, payload


def test_what_is_packed_is_received_as_itself() -> None:
    scene = make_scene()

    @given(PLAIN)
    def check(value: Any) -> None:
        assert scene.writer.send_packed(3, 7, value) is True
        kind, tag, payload = received(scene)
        assert (kind, tag) == (3 | KIND_PACKED, 7)
        assert payload == value
        assert types(payload) == types(value)
        assert scene.ring.heads == (scene.ring.tail,)

    check()
    scene.segment.close()


def test_the_bytes_are_those_of_pack(scene: Scene) -> None:
    value = ("echo", (1, None, 2.5), {}, "all")
    scene.writer.send(3 | KIND_PACKED, 7, pack(value) or b"")
    assert received(scene) == (3 | KIND_PACKED, 7, value)


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_anything_else_is_not_sent(scene: Scene, value: Any) -> None:
    assert scene.writer.send_packed(1, 1, value) is False
    assert scene.ring.tail == 0
    assert scene.inbox.try_recv() is None


@pytest.mark.parametrize("size", [MAX_RECORD - 6, MAX_RECORD - 5, 3 * CAPACITY])
def test_a_large_value_comes_whole_or_in_fragments(scene: Scene, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sender = threading.Thread(target=scene.writer.send_packed, args=(1, 1, value))
    sender.start()
    kind, _, payload = received(scene)
    sender.join()
    if 6 + size <= MAX_RECORD:
        assert (kind, payload) == (1 | KIND_PACKED, value)
    else:
        assert kind == 1
        assert type(payload) is Block
        assert decode(payload, False) == value


def test_without_space_it_waits_until_its_deadline(scene: Scene) -> None:
    value = bytes(CAPACITY // 4)
    for tag in range(3):
        assert scene.writer.send_packed(1, tag, value)
    with pytest.raises(TimeoutError, match="no space in the ring"):
        scene.writer.send_packed(1, 3, value, 0.01)
    late = threading.Timer(0.05, lambda: received(scene))
    late.start()
    assert scene.writer.send_packed(1, 4, value, 20)
    late.join()
    assert [received(scene)[1] for _ in range(3)] == [1, 2, 4]


def test_after_an_abandoned_message_the_next_value_says_so_first(scene: Scene) -> None:
    assert not scene.writer.try_send(1, 1, bytes(3 * CAPACITY))
    with pytest.raises(RuntimeError, match="another message is under way"):
        scene.writer.send_packed(1, 2, "value")
    scene.writer.abandon()
    assert scene.inbox.try_recv() is None
    assert scene.writer.send_packed(1, 3, "value", 20)
    assert received(scene) == (1 | KIND_PACKED, 3, "value")


DAMAGED = {
    "cut short": (pack(("echo", (1,))) or b"")[:-1],
    "more behind it": (pack("text") or b"") + b"n",
    "no UTF-8": b"\x01s\x01\x00\x00\x00\xff",
    "a pickle": pickle.dumps([1, 2], 5),
    "nothing": b"",
    "long": b"\x01" + bytes(5000),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_not_a_packed_value_is_received_as_bytes(scene: Scene, damage: str) -> None:
    scene.writer.send(2 | KIND_PACKED, 5, DAMAGED[damage])
    assert received(scene) == (2, 5, DAMAGED[damage])
    if damage == "a pickle":
        assert decode(DAMAGED[damage], False) == [1, 2]
    else:
        with pytest.raises(DecodeError):
            decode(DAMAGED[damage], False)
    scene.writer.send_packed(2, 6, "next")
    assert received(scene) == (2 | KIND_PACKED, 6, "next")


def test_the_receiver_shares_nothing_with_the_sender(scene: Scene) -> None:
    value: tuple[dict[str, int], ...] = ({},)
    scene.writer.send_packed(1, 1, value)
    value[0]["changed"] = 1
    assert received(scene)[2] == ({},)


def test_bytes_are_counted_however_they_go() -> None:
    segment, page = make_page(1)
    scene, line = make_scene(), page.line(0)
    del scene.writer  # a ring has one at a time
    writer = Writer(scene.ring, line)
    value = b"x" * 100
    packed = pack(value) or b""
    writer.send(1, 1, value)
    assert writer.try_send(1, 2, value)
    writer.send(1, 3, [value, value])
    writer.send_packed(1, 4, value)
    assert line.snapshot()["bytes_out"] == 4 * len(value) + len(packed)
    for made in (segment, scene.segment):
        made.close()


def test_what_goes_in_fragments_is_let_go(scene: Scene) -> None:
    value = bytes(2 * CAPACITY)

    def send_and_receive() -> None:
        sender = threading.Thread(target=scene.writer.send_packed, args=(1, 1, value))
        sender.start()
        received(scene)
        sender.join()

    send_and_receive()
    tracemalloc.start()
    try:
        for _ in range(10):
            send_and_receive()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * len(value)


def test_nothing_is_kept_of_a_value(scene: Scene) -> None:
    value = ("text that is nobody else's", (b"bytes", 1 << 40))
    before = [sys.getrefcount(item) for item in (value, *value)]
    for tag in range(100):
        scene.writer.send_packed(1, tag, value)
        received(scene)
    assert [sys.getrefcount(item) for item in (value, *value)] == before


def test_arguments_that_do_not_fit_are_refused(scene: Scene) -> None:
    for arguments in [(-1, 0, None), (1 << 16, 0, None), (1, -1, None), ("1", 0, None), (1, 1)]:
        with pytest.raises((OverflowError, ValueError, TypeError)):
            scene.writer.send_packed(*arguments)  # type: ignore[arg-type]
    assert scene.ring.tail == 0
    scene.ring.close()
    with pytest.raises(ChannelClosed):
        scene.writer.send_packed(1, 1, None)


class ReadsAtItsEnd:
    """Garbage, because it holds itself, whose end reads an inbox."""

    def __init__(self, scene: Scene, troubles: list[Exception]) -> None:
        self.itself, self.scene, self.troubles = self, scene, troubles

    def __del__(self) -> None:
        try:
            self.scene.inbox.try_recv()
        except Exception as trouble:
            self.troubles.append(trouble)


def test_what_is_collected_meanwhile_may_read_the_same_inbox(scene: Scene) -> None:
    troubles: list[Exception] = []
    kept = []
    before = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for tag in range(300):
            scene.writer.send_packed(1, tag, ((), ("nested", (tag, ())), {}))
            ReadsAtItsEnd(scene, troubles)
            kept.append(scene.inbox.try_recv())
    finally:
        gc.set_threshold(*before)
    assert troubles == []


@pytest.mark.parametrize("value", [(1 << 40, ("text", {})), [b"bytes"], [bytes(5000)]])
def test_where_there_is_no_memory_nothing_is_lost(scene: Scene, value: Any) -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this CPython was built without its tests")
    failed = 0
    for allocation in range(20):
        tag = (1 << 40) + allocation
        if isinstance(value, tuple):
            scene.writer.send_packed(300, tag, value)
        else:
            scene.writer.send(300, tag, value)
        testcapi.set_nomemory(allocation, allocation + 1)
        try:
            message = scene.inbox.try_recv()
        except MemoryError:
            message = None
        finally:
            testcapi.remove_mem_hooks()
        if message is None:
            failed += 1
            message = scene.inbox.recv(20)
        assert message is not None
        payload = message[3]
        assert message[2] == tag
        if isinstance(payload, memoryview):
            payload.release()
            scene.inbox.release()
    assert failed > 0
    assert scene.ring.heads == (scene.ring.tail,)
