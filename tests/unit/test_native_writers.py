"""A ring has one writer; what a writer leaves unfinished its successor makes good."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from rings import CAPACITY, Scene, is_used, make_scene, payload_of

from mpspmd import _ring
from mpspmd._ring import Ring, Writer
from mpspmd.errors import ChannelError

pytestmark = pytest.mark.timeout(30)


def test_a_second_writer_is_refused_and_told_who_the_first_is(scene: Scene) -> None:
    for ring in (scene.ring, Ring(scene.segment.fd)):
        with pytest.raises(ChannelError, match=f"process {os.getpid()} has a writer on this ring"):
            Writer(ring)
    scene.writer.send(1, 0, b"first")
    assert payload_of(scene.inbox) == b"first"


def test_a_writer_that_is_dropped_leaves_the_ring_to_the_next(scene: Scene) -> None:
    scene.writer.send(1, 0, b"first")
    del scene.writer
    second = Writer(scene.ring)
    second.send(1, 0, b"second")
    assert [payload_of(scene.inbox) for _ in range(2)] == [b"first", b"second"]
    with pytest.raises(ChannelError):
        Writer(scene.ring)


@pytest.mark.parametrize("read_before", [False, True])
def test_a_writer_dropped_in_mid_message_spoils_no_later_message(
    scene: Scene, read_before: bool
) -> None:
    data = bytearray(3 * CAPACITY)
    assert not scene.writer.try_send(1, 1, data)
    del scene.writer
    data.append(0)  # BufferError if it were still held
    if read_before:
        assert scene.inbox.try_recv() is None
    Writer(scene.ring)  # one that sends nothing passes it on
    second = Writer(scene.ring)
    sent = [b"next", bytes(2 * CAPACITY), b"last"]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(payload_of(scene.inbox) for _ in sent))
    reader.start()
    for payload in sent:
        second.send(1, 2, payload, 20)
    reader.join()
    assert received == sent


def test_a_message_that_was_given_up_is_told_by_the_next_writer(scene: Scene) -> None:
    with pytest.raises(TimeoutError):
        scene.writer.send(1, 1, bytes(3 * CAPACITY), 0.01)
    assert scene.inbox.try_recv() is None
    del scene.writer
    Writer(scene.ring).send(1, 2, b"good", 20)
    assert payload_of(scene.inbox) == b"good"


def test_a_forked_childs_copy_gives_the_ring_to_nobody(scene: Scene) -> None:
    pid = os.fork()
    if pid == 0:
        del scene.writer
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(ChannelError, match="has a writer"):
        Writer(Ring(scene.segment.fd))
    scene.writer.send(1, 0, b"still the writer")
    assert payload_of(scene.inbox) == b"still the writer"


_WRITES_AND_IS_KILLED = """
import os, signal, sys
from mpspmd._ring import Ring, Writer
writer = Writer(Ring(int(sys.argv[1])))
writer.send(1, 0, b"last words")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_ring_of_a_killed_writer_is_nobodys_to_write_to(scene: Scene) -> None:
    del scene.writer
    fd = scene.segment.fd
    program = [sys.executable, "-c", _WRITES_AND_IS_KILLED, str(fd)]
    killed = subprocess.Popen(program, pass_fds=[fd])
    assert killed.wait(20) == -9
    assert payload_of(scene.inbox) == b"last words"
    with pytest.raises(ChannelError, match=f"process {killed.pid} has a writer.*nobody may write"):
        Writer(scene.ring)
    scene.ring.poison(1, 0)  # which still ends every wait


@pytest.mark.parametrize("wait", ["AUTO", "SPIN", "YIELD", "PARK", "AWAKE"])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_writer_does_not_sleep_beside_space_that_suffices(
    wait: str, timeout: float | None, eventually: Any
) -> None:
    scene = make_scene()
    del scene.writer
    writer = Writer(scene.ring, wait=getattr(_ring, f"WAIT_{wait}"))
    message = bytes(1000)
    while writer.try_send(1, 0, message):
        pass
    writer.abandon()
    written: list[float] = []

    def send() -> None:
        writer.send(1, 1, message, timeout)
        written.append(time.monotonic())

    for _ in range(10):  # a busy machine may take longer for some
        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: is_used(writer), "the writer waits for space")
        time.sleep(0.02)  # perhaps it sleeps by then
        payload_of(scene.inbox)  # one record is free: what the writer needs, and far from a quarter
        freed = time.monotonic()
        sender.join()
        took = written.pop() - freed
        if took < 0.1:
            break
    # Each took half a second if it slept until it polls by itself.
    assert took < 0.1
