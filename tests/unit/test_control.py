"""The control plane: its messages, and a ROUTER and a DEALER that exchange them."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from mpspmd.control import messages
from mpspmd.control.plane import EnginePlane, RankPlane, control_address
from mpspmd.errors import SegmentError
from mpspmd.exceptions.fault import Fault

pytestmark = pytest.mark.timeout(30)

_TO_ENGINE = [
    messages.Hello(3),
    messages.Ready(0),
    Fault(1, 1 << 60, "step", "ValueError", "naïve — ∀\0", "Traceback…" * 1000, False, b"\xff\0"),
    messages.Stacks(2, 9, ""),
    messages.Exiting(63, "exit code 3"),
]
_TO_RANK = [messages.Dump(1 << 62), messages.Shutdown()]


class TestMessages:
    @pytest.mark.parametrize("message", _TO_ENGINE)
    def test_what_a_rank_sends_comes_back_the_same(self, message: Any) -> None:
        assert messages.decode_to_engine(messages.encode(message)) == message

    @pytest.mark.parametrize("message", _TO_RANK)
    def test_what_the_engine_sends_comes_back_the_same(self, message: Any) -> None:
        assert messages.decode_to_rank(messages.encode(message)) == message

    @pytest.mark.parametrize("message", _TO_RANK)
    def test_neither_side_takes_what_only_the_other_may_say(self, message: Any) -> None:
        with pytest.raises(msgspec.DecodeError):
            messages.decode_to_engine(messages.encode(message))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage",
            b"\xc1",
            messages.encode(_TO_ENGINE[0])[:-1],
            msgspec.msgpack.encode({"type": "hello", "rank": "zero"}),
            msgspec.msgpack.encode({"type": "hello"}),
            msgspec.msgpack.encode({"type": "no such type"}),
            b"\x80\x05\x95",  # how a pickle begins
        ],
    )
    def test_what_is_no_message_is_refused(self, data: bytes) -> None:
        with pytest.raises(msgspec.DecodeError):
            messages.decode_to_engine(data)

    def test_a_message_may_hold_text_that_is_not_utf8(self) -> None:
        name = b"caf\xe9".decode(errors="surrogateescape")
        fault = Fault(0, 1, "m", "OSError", name, name)
        decoded = messages.decode_to_engine(messages.encode(fault))
        assert isinstance(decoded, Fault)
        assert decoded.message.startswith("caf")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return control_address(tmp_path)


@pytest.fixture
def engine(address: str) -> Iterator[EnginePlane]:
    plane = EnginePlane(address)
    yield plane
    plane.close()


@pytest.fixture
def rank(engine: EnginePlane, address: str) -> Iterator[RankPlane]:
    plane = RankPlane(address, 5)
    yield plane
    plane.close()


def _receive(plane: Any, count: int) -> list[Any]:
    deadline = time.monotonic() + 20
    received: list[Any] = []
    while len(received) < count and time.monotonic() < deadline:
        received += plane.poll(0.1)[1]
    return received


def test_a_folder_with_too_long_a_name_is_refused_with_both_lengths(tmp_path: Path) -> None:
    folder = tmp_path / ("ü" * 60)
    with pytest.raises(SegmentError, match=r"107 are allowed.*MPSPMD_RUNTIME_DIR") as caught:
        control_address(folder)
    assert f"has {len(str(folder / 'control').encode())} bytes" in str(caught.value)


def test_the_longest_allowed_address_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * (107 - len(str(tmp_path)) - len("//control")))
    folder.mkdir()
    address = control_address(folder)
    assert len(address.removeprefix("ipc://")) == 107
    EnginePlane(address).close()


def test_an_address_that_cannot_be_bound_leaves_no_descriptor_open(
    address: str, eventually: Any
) -> None:
    Path(address.removeprefix("ipc://")).mkdir()

    def fail() -> int:
        with pytest.raises(zmq.ZMQError):
            EnginePlane(address)
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = fail()  # what the first one opens may stay
    for _ in range(5):
        fail()
    # A thread of ZeroMQ's closes the socket.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "the descriptors are closed")


def test_messages_go_both_ways_in_order(engine: EnginePlane, rank: RankPlane) -> None:
    for message in _TO_ENGINE:
        rank.send(message)
    rank.poll(0)
    assert _receive(engine, len(_TO_ENGINE)) == _TO_ENGINE
    for message in _TO_RANK:
        engine.send(5, message)
    engine.poll(0)
    assert _receive(rank, len(_TO_RANK)) == _TO_RANK


def test_another_threads_message_ends_the_wait_of_the_socket_s_owner(
    engine: EnginePlane, rank: RankPlane
) -> None:
    rank.send(_TO_ENGINE[0])
    rank.poll(0)
    assert _receive(engine, 1) == _TO_ENGINE[:1]
    owner = threading.Thread(target=engine.poll, args=(25,))
    owner.start()
    engine.send(5, messages.Dump(7))
    assert _receive(rank, 1) == [messages.Dump(7)]
    owner.join(20)
    assert not owner.is_alive()


def test_eight_threads_may_send_at_once(engine: EnginePlane, rank: RankPlane) -> None:
    senders = [
        threading.Thread(
            target=lambda i=i: [rank.send(messages.Stacks(i, n, "")) for n in range(100)]
        )
        for i in range(8)
    ]
    owner_ends = threading.Event()

    def own() -> None:
        while not owner_ends.is_set():
            rank.poll(0.05)

    owner = threading.Thread(target=own)
    for thread in (*senders, owner):
        thread.start()
    received = _receive(engine, 800)
    owner_ends.set()
    for thread in (*senders, owner):
        thread.join()
    for i in range(8):
        assert [each.nonce for each in received if each.rank == i] == list(range(100))


def _dropped(caplog: pytest.LogCaptureFixture) -> int:
    """How many lines say so. A thread of its own writes each of them."""
    return caplog.text.count("dropped a control message")


def test_garbage_is_dropped_and_logged_and_nothing_else_is(
    engine: EnginePlane, address: str, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    caplog.set_level(logging.WARNING)
    hello = messages.Hello(0)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.connect(address)
        for data in (b"garbage", messages.encode(hello), b"", messages.encode(messages.Shutdown())):
            stranger.send(data)
        stranger.send_multipart([b"part", b"garbage"])
        stranger.send(messages.encode(hello))
        assert _receive(engine, 2) == [hello, hello]
    eventually(lambda: _dropped(caplog) >= 4, "all garbage is logged")
    assert _dropped(caplog) == 4
    assert "dropped a control message of 7 bytes" in caplog.text


def test_a_rank_drops_garbage_as_well(
    engine: EnginePlane, rank: RankPlane, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    rank.send(_TO_ENGINE[0])
    rank.poll(0)
    _receive(engine, 1)
    engine._socket.send_multipart([b"rank-5", b"garbage"])
    engine.send(5, messages.Dump(1))
    engine.poll(0)
    assert _receive(rank, 1) == [messages.Dump(1)]
    eventually(lambda: _dropped(caplog), "the garbage is logged")
    assert caplog.text.count("dropped a control message of 7 bytes") == _dropped(caplog) == 1


def test_a_watched_descriptor_ends_the_wait_until_it_is_unwatched(engine: EnginePlane) -> None:
    import os

    read, write = os.pipe()
    engine.watch(read)
    assert engine.poll(0)[0] == set()
    os.write(write, b"!")
    assert engine.poll(25)[0] == {read}
    engine.unwatch(read)
    assert engine.poll(0)[0] == set()
    os.close(read)
    os.close(write)


def test_a_message_to_a_rank_that_is_not_there_is_dropped(engine: EnginePlane) -> None:
    engine.send(9, messages.Shutdown())
    assert engine.poll(0.05) == (set(), [])


def test_close_does_not_wait_for_a_peer_that_has_gone(address: str) -> None:
    plane = RankPlane(address, 1)  # nobody listens there
    plane.send(_TO_ENGINE[0])
    plane.poll(0)
    began = time.monotonic()
    plane.close()
    assert time.monotonic() - began < 5


def test_a_wake_after_the_end_writes_into_nobody_elses_file(tmp_path: Path) -> None:
    plane = EnginePlane(control_address(tmp_path))
    number = plane._mailbox.fileno()
    plane.close()
    others: list[int] = []
    while number not in others:  # the number is given out again
        others += os.pipe2(os.O_NONBLOCK)
    plane.wake()
    plane.send(0, messages.Shutdown())
    for read, write in zip(others[::2], others[1::2], strict=True):
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        os.close(read)
        os.close(write)
