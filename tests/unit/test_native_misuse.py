"""The native module in wrong hands: corrupt memory, foreign descriptors, forks, too many threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rings import CAPACITY, Scene, is_read, is_used, make_page, make_scene, payload_of

from mpspmd._ring import MAX_READERS, Inbox, Liveness, Ring, StatusPage, Writer
from mpspmd.errors import ChannelCorrupt, ChannelError
from mpspmd.transport.segment import Segment

pytestmark = pytest.mark.timeout(30)


class TestCorruption:
    @pytest.mark.parametrize("length", [1000, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_a_length_beyond_what_was_written_is_refused_with_its_place(
        self, scene: Scene, length: int
    ) -> None:
        scene.writer.send(1, 0, b"first")
        payload_of(scene.inbox)
        scene.writer.send(1, 0, b"second")
        scene.overwrite(scene.data_offset + 24, "<I", length)
        for _ in range(2):
            with pytest.raises(ChannelCorrupt, match=f"record at 24 .*length {length}"):
                scene.inbox.recv(5)

    @pytest.mark.parametrize("flags", [0x10, 0x8000, 1, 2, 4, 1 | 4, 8, 8 | 1])
    def test_flags_that_no_writer_sets_are_refused(self, scene: Scene, flags: int) -> None:
        scene.writer.send(1, 0, b"12345678")
        scene.overwrite(scene.data_offset + 6, "<H", flags)
        with pytest.raises(ChannelCorrupt, match=f"flags {flags}"):
            scene.inbox.recv(5)

    @pytest.mark.parametrize("total", [0, 1, 1 << 40, 1 << 63, (1 << 64) - 1])
    def test_a_message_whose_length_does_not_add_up_is_refused(
        self, scene: Scene, total: int
    ) -> None:
        assert not scene.writer.try_send(1, 0, bytes(2 * CAPACITY))
        scene.overwrite(scene.data_offset + 16, "<Q", total)
        with pytest.raises((ChannelCorrupt, MemoryError)):
            _receive_while_sending(scene)

    @pytest.mark.parametrize("tail", [8, CAPACITY + 8, (1 << 64) - 8])
    def test_a_tail_that_no_writer_reaches_is_refused(self, scene: Scene, tail: int) -> None:
        # The tail is on the second line of the header.
        scene.overwrite(128, "<Q", tail)
        assert scene.ring.tail == tail
        with pytest.raises(ChannelCorrupt, match=f"tail {tail}"):
            scene.inbox.recv(5)

    def test_random_bytes_never_end_the_process(self) -> None:
        import random

        rng = random.Random(5)
        for _ in range(300):
            scene = make_scene()
            for size in (3, 5000, 40, 2000):
                scene.writer.send(1, 0, rng.randbytes(size))
            for _ in range(rng.randrange(1, 4)):
                scene.overwrite(scene.data_offset + rng.randrange(7200), "<I", rng.getrandbits(32))
            try:
                while True:
                    payload_of(scene.inbox, 0)
            except (ChannelCorrupt, TimeoutError, MemoryError):
                pass
            scene.segment.close()


def _receive_while_sending(scene: Scene) -> None:
    while scene.inbox.try_recv() is None:
        scene.writer.resume()


class TestDescriptors:
    @pytest.mark.parametrize("kind", [Ring, StatusPage])
    def test_what_is_no_segment_of_ours_is_refused(self, kind: Any, tmp_path: Path) -> None:
        read, write = os.pipe()
        garbage = tmp_path / "garbage"
        garbage.write_bytes(os.urandom(1 << 17))
        empty = Segment.create(1 << 17)
        with garbage.open("rb") as file:
            for fd in (read, file.fileno(), empty.fd):
                with pytest.raises(ValueError, match=f"descriptor {fd} is not"):
                    kind(fd)
        os.close(read)
        os.close(write)
        with pytest.raises(OSError, match="Bad file descriptor"):
            kind(-1)
        empty.close()

    def test_a_ring_whose_segment_is_cut_short_is_refused(self, scene: Scene) -> None:
        os.truncate(scene.segment.fd, scene.segment.size - 1)
        with pytest.raises(ValueError, match="not a ring"):
            Ring(scene.segment.fd)

    @pytest.mark.parametrize(
        ("offset", "form", "value"),
        [
            *((0, "<Q", 1), (8, "<I", 99), (12, "<I", 0), (12, "<I", 65)),
            *((16, "<Q", 12345), (16, "<Q", 1 << 40), (24, "<Q", 0), (24, "<Q", 1 << 50)),
        ],
    )
    def test_a_header_with_any_wrong_field_is_refused(
        self, scene: Scene, offset: int, form: str, value: int
    ) -> None:
        scene.overwrite(offset, form, value)
        with pytest.raises(ValueError, match="not a ring"):
            Ring(scene.segment.fd)

    @pytest.mark.parametrize(("capacity", "readers"), [(100, 1), (3 << 16, 1), (1 << 16, 0)])
    def test_a_ring_of_an_impossible_shape_is_refused_with_the_limits(
        self, capacity: int, readers: int
    ) -> None:
        segment = Segment.create(1 << 20)
        with pytest.raises(ValueError, match=f"{capacity} bytes for {readers} readers.*power of"):
            Ring.format(segment.fd, capacity, readers)
        with pytest.raises(ValueError, match=f"readers 1 to {MAX_READERS}"):
            Ring.format(segment.fd, 1 << 16, MAX_READERS + 1)
        segment.close()

    @pytest.mark.parametrize("kind", [Ring, StatusPage])
    def test_a_segment_that_is_too_small_is_refused_before_it_is_written(self, kind: Any) -> None:
        # In a process of its own: writing beyond a segment's end ends a process.
        program = (
            "import os; from mpspmd._ring import Ring, StatusPage; fd = os.memfd_create('x');"
            f"{kind.__name__}.format(fd, *{(1 << 16, 1) if kind is Ring else (1, 0, 4)!r})"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20)
        assert done.returncode == 1
        assert b"ValueError" in done.stderr or b"OSError" in done.stderr


class TestSlots:
    def test_a_slot_is_taken_once(self, scene: Scene) -> None:
        with pytest.raises(ChannelError, match=r"slot 0 .* taken"):
            Inbox((Ring(scene.segment.fd),), 0)
        for slot in (1, 64, 1 << 31):
            with pytest.raises(ChannelError, match="its 1 readers"):
                Inbox((Ring(scene.segment.fd),), slot)

    def test_an_inbox_that_cannot_be_made_takes_no_slot(self) -> None:
        _, page = make_page(1)
        segments = [Segment.create(Ring.segment_bytes(CAPACITY, 1)) for _ in range(2)]
        for segment in segments:
            Ring.format(segment.fd, CAPACITY, 1)
        first, second = (Ring(segment.fd, data_bell=page) for segment in segments)
        taken = Inbox((second,), 0)
        with pytest.raises(ChannelError, match="ring 1"):
            Inbox((first, second), 0)
        Inbox((first,), 0)
        del taken

    def test_rings_of_an_inbox_must_share_their_bell(self) -> None:
        segments = [Segment.create(Ring.segment_bytes(CAPACITY, 1)) for _ in range(2)]
        for segment in segments:
            Ring.format(segment.fd, CAPACITY, 1)
        with pytest.raises(ValueError, match="share"):
            Inbox(tuple(Ring(segment.fd) for segment in segments), 0)

    @pytest.mark.parametrize("rings", [(), [], (1,), None, ("ring",)])
    def test_an_inbox_of_no_rings_is_refused(self, rings: Any) -> None:
        with pytest.raises(TypeError):
            Inbox(rings, 0)

    @pytest.mark.parametrize("make", [lambda: Writer(None), lambda: Ring(0, data_bell=1)])
    def test_arguments_of_a_wrong_type_are_refused(self, make: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            make()


def test_wait_takes_its_arguments_by_name_as_its_stub_says(scene: Scene) -> None:
    assert scene.writer.wait(inbox=scene.inbox, timeout=0.05)


class TestThreads:
    def test_a_second_thread_may_not_read_the_same_inbox(
        self, scene: Scene, eventually: Any
    ) -> None:
        reader = threading.Thread(target=lambda: scene.inbox.recv(20), daemon=True)
        reader.start()
        eventually(lambda: is_read(scene.inbox), "the other thread reads", 15)
        for receive in (lambda: scene.inbox.recv(5), scene.inbox.try_recv):
            with pytest.raises(RuntimeError, match="another thread"):
                receive()
        scene.inbox.interrupt()
        reader.join(15)
        assert not reader.is_alive()
        scene.writer.send(1, 0, b"usable")
        assert payload_of(scene.inbox) == b"usable"

    def test_a_second_thread_may_not_use_a_writer_while_one_waits(
        self, scene: Scene, eventually: Any
    ) -> None:
        sender = threading.Thread(
            target=scene.writer.send, args=(1, 0, bytes(3 * CAPACITY)), daemon=True
        )
        sender.start()
        eventually(lambda: is_used(scene.writer), "the other thread sends")
        for use in (
            lambda: scene.writer.send(1, 0, b"x", 5),
            lambda: scene.writer.try_send(1, 0, b"x"),
            scene.writer.resume,
            scene.writer.abandon,
            scene.writer.wait,
        ):
            with pytest.raises(RuntimeError, match="another thread"):
                use()
        assert len(payload_of(scene.inbox)) == 3 * CAPACITY
        sender.join()

    def test_nobody_reads_an_inbox_that_a_writer_watches(
        self, scene: Scene, eventually: Any
    ) -> None:
        while scene.writer.try_send(1, 0, bytes(1000)):
            pass
        other = make_scene()
        waiter = threading.Thread(target=scene.writer.wait, args=(other.inbox, 20), daemon=True)
        waiter.start()
        eventually(lambda: is_read(other.inbox), "the writer watches the inbox", 15)
        with pytest.raises(RuntimeError, match="another thread"):
            other.inbox.try_recv()
        scene.writer.interrupt()
        waiter.join(15)
        assert other.inbox.try_recv() is None
        other.segment.close()

    def test_a_liveness_may_be_closed_by_two_threads(self, scene: Scene) -> None:
        for _ in range(30):
            segment, page = make_page(2)
            notice = os.eventfd(0)
            liveness = Liveness.of_engine(page, (scene.ring,), 1, notice)
            both = threading.Barrier(2)

            def close(own: Liveness = liveness, both: threading.Barrier = both) -> None:
                both.wait()
                own.close()

            threads = [threading.Thread(target=close, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
            os.close(notice)
            segment.close()


def test_a_page_that_is_mapped_read_only_is_refused(scene: Scene) -> None:
    segment, _ = make_page(1)
    seen = StatusPage(os.open(f"/proc/self/fd/{segment.fd}", os.O_RDONLY))
    free = make_scene().ring
    for use in (
        lambda: Inbox((free,), 0, seen.line(0)),
        lambda: Inbox((free,), 0, None, seen),
        lambda: Writer(free, seen.line(0)),
        lambda: Liveness.of_rank(seen, (free,), 1, 0, 1.0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            use()
    segment.close()


_AFTER_FORK = """
import os, sys
from rings import make_page, make_scene
from mpspmd._ring import Inbox, Liveness, Ring, StatusPage, Writer
from mpspmd.transport.segment import Segment

scene = make_scene(n_readers=2)
segment, page = make_page(1)
line = page.line(0)
shared = Ring(scene.segment.fd, space_bell=page)
waiting = make_scene()
waiting.writer.try_send(1, 0, bytes(1 << 20))
unread = Segment.create(Ring.segment_bytes(1 << 16, 1))
Ring.format(unread.fd, 1 << 16, 1)
counted = Inbox((Ring(unread.fd),), 0, line)
held = make_scene()
held.writer.send(1, 0, bytes(5000))
record = held.inbox.recv(5)[3]
actions = {
    "recv": lambda: scene.inbox.recv(0),
    "try_recv": lambda: scene.inbox.try_recv(),
    "send": lambda: scene.writer.send(1, 0, b"x"),
    "wait": lambda: scene.writer.wait(None, 0),
    "resume": lambda: waiting.writer.resume(),
    "close": lambda: scene.ring.close(),
    "poison": lambda: scene.ring.poison(1, 1),
    "mark_dead": lambda: scene.ring.mark_dead(0),
    "tail": lambda: scene.ring.tail,
    "heads": lambda: scene.ring.heads,
    "state": lambda: scene.ring.state,
    "interrupt": lambda: scene.inbox.interrupt(),
    "interrupt writer": lambda: scene.writer.interrupt(),
    "a new writer": lambda: Writer(scene.ring),
    "a new inbox": lambda: Inbox((shared,), 1),
    "a page": lambda: page.engine_pid,
    "a line": lambda: page.line(0),
    "enter": lambda: line.enter(0),
    "open": lambda: line.open(),
    "replied": lambda: line.replied(),
    "snapshot": lambda: line.snapshot(),
    "counts": lambda: counted.wait_counts,
    "an old line": lambda: Writer(Ring(unread.fd), line),
    "an old line to read for": lambda: Inbox((Ring(unread.fd),), 0, line),
    "an old inbox": lambda: Writer(Ring(unread.fd)).wait(scene.inbox, 0),
    "abandon": lambda: waiting.writer.abandon(),
    "a record in place": lambda: memoryview(held.inbox),
    "release": lambda: (record.release(), held.inbox.release()),
    "an old liveness": lambda: Liveness.of_engine(page, (shared,), 1, 0),
    "an old bell": lambda: Ring(unread.fd, data_bell=page).close(),
}
for name, action in actions.items():
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        print(name, status)
assert Ring(scene.segment.fd).state[0] == "open"
scene.writer.send(1, 0, b"still usable")
assert scene.inbox.recv(5)[3] == b"still usable"
"""


def test_a_forked_child_is_refused_everything_that_it_has_inherited() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AFTER_FORK],
        capture_output=True,
        text=True,
        timeout=25,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
