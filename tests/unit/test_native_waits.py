"""Waiting in the native module: deadlines, interrupts, signals; and that nothing leaks."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from rings import (
    CAPACITY,
    Scene,
    is_read,
    is_used,
    make_page,
    make_scene,
    payload_of,
    resident_bytes,
)

from mpspmd import _ring
from mpspmd._ring import Inbox, Ring, StatusPage, Writer
from mpspmd.errors import ChannelCorrupt, ChannelError
from mpspmd.transport.segment import Segment

pytestmark = pytest.mark.timeout(60)


class TestDeadlines:
    @pytest.mark.parametrize("timeout", [0, 0.0, -1, 0.05])
    def test_a_wait_ends_at_its_deadline(self, scene: Scene, timeout: float) -> None:
        for _ in range(10):  # a busy machine may take longer for some
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                scene.inbox.recv(timeout)
            with pytest.raises(TimeoutError):
                scene.writer.send(1, 0, bytes(3 * CAPACITY), timeout)
            took = time.monotonic() - began
            assert took >= 2 * max(0, timeout)
            if took < 0.4:
                break
        assert took < 0.4  # it would be half a second, if it ended when it next looks for signals

    @pytest.mark.parametrize("timeout", ["1", b"1", float("nan")])
    def test_a_timeout_that_is_no_number_is_refused(self, scene: Scene, timeout: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            scene.inbox.recv(timeout)

    def test_a_message_that_is_there_is_received_whatever_the_deadline(self, scene: Scene) -> None:
        scene.writer.send(1, 0, b"x")
        assert payload_of(scene.inbox, 0) == b"x"
        assert scene.inbox.try_recv() is None

    def test_a_wait_burns_no_processor_time(self, scene: Scene) -> None:
        began = time.process_time()
        with pytest.raises(TimeoutError):
            scene.inbox.recv(1.0)
        assert time.process_time() - began < 0.1
        assert scene.inbox.wait_counts["parks"] >= 1

    def test_other_threads_run_while_one_waits(self, scene: Scene, eventually: Any) -> None:
        reader = threading.Thread(target=payload_of, args=(scene.inbox, 50))
        reader.start()
        eventually(lambda: is_read(scene.inbox), "the other thread waits")
        assert all(is_read(scene.inbox) for _ in range(100))
        scene.writer.send(1, 0, b"x")
        reader.join(20)
        assert not reader.is_alive()

    def test_several_threads_may_each_wait_on_a_ring_of_their_own(self) -> None:
        scene = make_scene(n_readers=6)
        got: list[list[bytes]] = [[] for _ in range(6)]
        threads = [
            threading.Thread(
                target=lambda i=i: got[i].extend(payload_of(scene.inboxes[i]) for _ in range(300))
            )
            for i in range(6)
        ]
        for thread in threads:
            thread.start()
        sent = [i.to_bytes(2, "little") * (i % 900) for i in range(300)]
        for data in sent:
            scene.writer.send(1, 0, data, 20)
        for thread in threads:
            thread.join(20)
        assert got == [sent] * 6


class TestInterrupts:
    def test_an_interrupt_ends_the_wait_that_is_or_the_next_one_and_only_one(
        self, scene: Scene
    ) -> None:
        threading.Timer(0.2, scene.inbox.interrupt).start()
        assert scene.inbox.recv(20) is None
        scene.inbox.interrupt()
        scene.inbox.interrupt()
        assert scene.inbox.recv(20) is None
        with pytest.raises(TimeoutError):
            scene.inbox.recv(0.05)

    def test_a_message_comes_before_an_interrupt(self, scene: Scene) -> None:
        scene.writer.send(1, 0, b"x")
        scene.inbox.interrupt()
        assert payload_of(scene.inbox) == b"x"
        assert scene.inbox.recv(20) is None

    @pytest.mark.parametrize("wait", ["recv", "send", "wait"])
    def test_ctrl_c_ends_a_wait_and_harms_nothing(self, scene: Scene, wait: str) -> None:
        waits: dict[str, Callable[[], object]] = {
            "recv": lambda: scene.inbox.recv(20),
            "send": lambda: scene.writer.send(1, 0, bytes(3 * CAPACITY), 20),
            "wait": lambda: scene.writer.wait(None, 20),
        }
        if wait == "wait":
            assert not scene.writer.try_send(1, 0, bytes(3 * CAPACITY))

        def interrupt() -> None:
            while not (is_read(scene.inbox) if wait == "recv" else is_used(scene.writer)):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                waits[wait]()
        finally:
            signal.signal(signal.SIGINT, old)
        scene.writer.abandon()
        sender = threading.Thread(target=scene.writer.send, args=(1, 0, b"usable", 20))
        sender.start()
        assert payload_of(scene.inbox) == b"usable"
        sender.join()

    def test_a_signal_whose_handler_returns_lets_the_wait_go_on(self, scene: Scene) -> None:
        taken: list[int] = []

        def interrupt_and_send() -> None:
            while not is_read(scene.inbox):
                time.sleep(0.01)
            for n_taken in range(3):
                os.kill(os.getpid(), signal.SIGUSR1)
                end = time.monotonic() + 10
                while len(taken) == n_taken and time.monotonic() < end:
                    time.sleep(0.01)
            scene.writer.send(1, 0, b"x")

        old = signal.signal(signal.SIGUSR1, lambda number, frame: taken.append(number))
        sender = threading.Thread(target=interrupt_and_send)
        try:
            sender.start()
            assert payload_of(scene.inbox, 50) == b"x"
        finally:
            sender.join()
            signal.signal(signal.SIGUSR1, old)
        assert taken == [signal.SIGUSR1] * 3


class TestStatusPage:
    def test_a_line_shows_what_its_rank_has_entered(self) -> None:
        _, page = make_page(3)
        line = page.line(2)
        assert page.engine_pid == os.getpid()
        line.open()
        assert line.snapshot()["phase"] == "loading"
        before = time.monotonic()
        line.enter(_ring.PHASE_RUNNING, 1 << 60, b"execute_model")
        line.enter(_ring.PHASE_REPLYING)
        line.replied()
        shown = page.line(2).snapshot()
        assert (shown["phase"], shown["step"]) == ("replying", 1 << 60)
        assert (shown["method"], shown["pid"]) == ("execute_model", os.getpid())
        assert before <= shown["since"] <= time.monotonic()
        assert shown["replies"] == 1
        assert page.line(1).snapshot()["pid"] == 0

    @pytest.mark.parametrize("name", ["m" * 63, "m" * 64, "m" * 500, "é" * 40, "m" + "∀" * 40])
    def test_a_name_that_is_too_long_is_cut_to_text(self, name: str) -> None:
        _, page = make_page(1)
        line = page.line(0)
        line.enter(_ring.PHASE_RUNNING, 1, name.encode())
        shown = line.snapshot()["method"].rstrip("\N{REPLACEMENT CHARACTER}")
        assert len(shown) >= 20
        assert name.startswith(shown)

    @pytest.mark.parametrize("rank", [3, -1, 1 << 40])
    def test_a_rank_that_is_not_there_is_refused(self, rank: int) -> None:
        _, page = make_page(3)
        with pytest.raises((ValueError, OverflowError)):
            page.line(rank)

    def test_a_line_is_read_whole_while_it_is_being_written(self) -> None:
        _, page = make_page(1)
        writer, reader = page.line(0), page.line(0)
        writer.enter(_ring.PHASE_RUNNING, 0, b"0")
        ends = threading.Event()

        def write() -> None:
            step = 0
            while not ends.is_set():
                step += 1
                writer.enter(_ring.PHASE_RUNNING, step, str(step).encode())

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(5000):
            shown = reader.snapshot()
            assert shown["method"] == str(shown["step"])
        ends.set()
        thread.join()


def _use_everything(scene: Scene, large: bytes) -> None:
    """One of each: what is sent and received, refused, timed out and given up."""
    scene.writer.send(1, 7, [b"small", b"parts"])
    payload_of(scene.inbox)
    scene.writer.send(1, 7, large[:5000])
    payload_of(scene.inbox)
    scene.writer.try_send(1, 7, [large] * 20)
    assert scene.inbox.try_recv() is None
    scene.writer.abandon()
    for wrong in (lambda: scene.writer.send(1, 7, [b"x", None]), lambda: scene.inbox.recv(0)):
        try:
            wrong()
        except (TypeError, TimeoutError):
            continue
        raise AssertionError
    scene.inbox.interrupt()
    assert scene.inbox.recv(0) is None
    assert scene.ring.state[0] == "open"
    assert len(scene.ring.heads) == 1


def _make_everything() -> None:
    segment, page = make_page(2)
    scene = make_scene()
    line = page.line(1)
    line.enter(_ring.PHASE_RUNNING, 1, b"m")
    line.snapshot()
    for wrong in (lambda: Ring(0), lambda: Inbox((scene.ring,), 0), lambda: page.line(9)):
        try:
            wrong()
        except Exception:
            continue
        raise AssertionError
    scene.writer.send(1, 0, b"x" * 16)
    scene.overwrite(scene.data_offset, "<I", 99999)
    with contextlib.suppress(ChannelCorrupt):
        scene.inbox.recv(0)
    Ring(scene.segment.fd, data_bell=page, space_bell=page)
    with contextlib.suppress(ChannelError):
        Writer(scene.ring, line)
    del scene.writer
    Writer(scene.ring, line)
    segment.close()
    scene.segment.close()


@pytest.mark.parametrize("what", ["use", "make"])
def test_nothing_leaks_over_many_rounds(scene: Scene, eventually: Any, what: str) -> None:
    large = bytes(20_000)
    # The interpreter remembers which names C code has looked up, thousands of them.
    clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache

    def rounds(count: int) -> None:
        for _ in range(count):
            _use_everything(scene, large) if what == "use" else _make_everything()
        gc.collect()
        clear_caches()

    times = 1000 if what == "use" else 200
    rounds(times)
    files, memory, references = _files(), resident_bytes(), sys.getrefcount(large)
    types = {kind: sys.getrefcount(kind) for kind in (Inbox, Ring, StatusPage, Writer, Segment)}
    maps = _mappings()

    def growth() -> int:
        before = tracemalloc.get_traced_memory()[0]
        rounds(times)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    rounds(10)
    # No object is as small. A leak grows each time; a table of the interpreter, such as that of interned
    # texts, grows once in a while.
    leaks = all(growth() >= 20 * times for _ in range(3))
    tracemalloc.stop()
    assert not leaks
    # A few less may be there: what an earlier test has left may end at any time. A thread of an engine of
    # another test's may have one open for a moment.
    eventually(lambda: files - times < _files() <= files, "no descriptor more")
    assert _mappings() <= maps + 2
    assert sys.getrefcount(large) == references
    for kind, before in types.items():
        assert before - times < sys.getrefcount(kind) <= before
    assert resident_bytes() - memory < 8 << 20


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for line in maps if "mpspmd" in line)
