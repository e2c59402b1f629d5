"""Signals' handlers: one that uses the channel on which its own thread waits, and faulthandler's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rings import CAPACITY, Scene, make_scene, payload_of

pytestmark = pytest.mark.timeout(30)


class Handler:
    """Does something when SIGALRM comes, which is when this thread is within a wait."""

    def __init__(self) -> None:
        self.action: Callable[[], Any] = lambda: None
        self.then: Callable[[], Any] = lambda: None
        self.results: list[Any] = []

    def __call__(self, *_: object) -> None:
        try:
            self.results.append(self.action())
        except Exception as error:
            self.results.append(error)
        self.then()

    def acts_within(
        self,
        use: Callable[[], Any],
        action: Callable[[], Any],
        then: Callable[[], Any] = lambda: None,
    ) -> None:
        """Once `use`, from another thread, is told that this one is within a wait."""
        self.action, self.then = action, then

        def look() -> None:
            while True:
                try:
                    use()
                except RuntimeError:
                    break
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGALRM)

        threading.Thread(target=look).start()

    def was_refused(self) -> bool:
        (result,) = self.results
        return isinstance(result, RuntimeError) and "a signal's handler" in str(result)


@pytest.fixture
def handler() -> Iterator[Handler]:
    handler = Handler()
    before = signal.signal(signal.SIGALRM, handler)
    yield handler
    signal.signal(signal.SIGALRM, before)


READING: dict[str, Callable[[Scene], Any]] = {
    "recv": lambda scene: scene.inbox.recv(5),
    "try_recv": lambda scene: scene.inbox.try_recv(),
    "wait": lambda scene: scene.writer.wait(scene.inbox, 5),
}


@pytest.mark.parametrize("use", READING)
def test_a_handler_may_not_read_what_its_thread_is_reading(
    scene: Scene, handler: Handler, use: str
) -> None:
    handler.acts_within(
        scene.inbox.try_recv,
        lambda: READING[use](scene),
        then=lambda: scene.writer.send(1, 0, b"for the outer one"),
    )
    assert payload_of(scene.inbox) == b"for the outer one"
    assert handler.was_refused()
    scene.writer.send(1, 0, b"next")
    assert payload_of(scene.inbox) == b"next"


WRITING: dict[str, Callable[[Scene], Any]] = {
    "send": lambda scene: scene.writer.send(1, 1, b"inner", 5),
    "send_packed": lambda scene: scene.writer.send_packed(1, 1, "inner", 5),
    "try_send": lambda scene: scene.writer.try_send(1, 1, b"inner"),
    "resume": lambda scene: scene.writer.resume(),
    "abandon": lambda scene: scene.writer.abandon(),
    "wait": lambda scene: scene.writer.wait(None, 5),
}


@pytest.mark.parametrize("use", WRITING)
def test_a_handler_may_not_write_where_its_thread_is_writing(
    scene: Scene, handler: Handler, use: str
) -> None:
    sent = [bytes(3 * CAPACITY), b"next"]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(payload_of(scene.inbox) for _ in sent))
    handler.acts_within(scene.writer.abandon, lambda: WRITING[use](scene), then=reader.start)
    for data in sent:
        scene.writer.send(1, 0, data, 20)
    reader.join()
    assert handler.was_refused()
    assert received == sent


def test_a_handler_may_not_send_while_its_thread_waits_to_go_on(
    scene: Scene, handler: Handler
) -> None:
    assert not scene.writer.try_send(1, 0, bytes(3 * CAPACITY))
    handler.acts_within(
        lambda: _is_free(scene),
        lambda: scene.writer.try_send(1, 1, b"inner"),
        then=scene.writer.interrupt,
    )
    assert scene.writer.wait(None, 20)
    assert handler.was_refused()
    with pytest.raises(RuntimeError, match="another message is under way"):
        scene.writer.send(1, 1, b"inner")
    scene.writer.abandon()
    assert scene.inbox.try_recv() is None
    scene.writer.send(1, 0, b"next", 5)
    assert payload_of(scene.inbox) == b"next"


def _is_free(scene: Scene) -> None:
    """RuntimeError when a thread is within one of the writer's methods."""
    with pytest.raises(TypeError):
        scene.writer.try_send()  # type: ignore[call-arg]


def test_a_handler_may_use_another_channel(scene: Scene, handler: Handler) -> None:
    other = make_scene()

    def round_trip() -> bytes:
        other.writer.send(1, 0, b"inner")
        return payload_of(other.inbox)

    handler.acts_within(
        scene.inbox.try_recv, round_trip, then=lambda: scene.writer.send(1, 0, b"outer")
    )
    assert payload_of(scene.inbox) == b"outer"
    assert handler.results == [b"inner"]
    other.segment.close()


def test_a_handler_may_interrupt_its_own_threads_wait(scene: Scene, handler: Handler) -> None:
    handler.acts_within(scene.inbox.try_recv, scene.inbox.interrupt)
    assert scene.inbox.recv(20) is None
    assert not scene.writer.try_send(1, 0, bytes(3 * CAPACITY))
    handler.acts_within(lambda: _is_free(scene), scene.writer.interrupt)
    assert scene.writer.wait(None, 20)
    assert handler.results == [None, None]


WAITING: dict[str, Callable[[Scene], Any]] = {
    "recv": lambda scene: scene.inbox.recv(20),
    "send": lambda scene: scene.writer.send(1, 0, bytes(3 * CAPACITY), 20),
    "wait": lambda scene: scene.writer.wait(None, 20),
}


@pytest.mark.parametrize("wait", WAITING)
def test_what_a_handler_raises_ends_the_wait_and_leaves_the_channel_usable(
    scene: Scene, handler: Handler, wait: str
) -> None:
    class Enough(Exception):
        pass

    def raise_it(*_: object) -> None:
        raise Enough

    signal.signal(signal.SIGALRM, raise_it)
    if wait == "wait":
        assert not scene.writer.try_send(1, 0, bytes(3 * CAPACITY))
    looks = {"recv": scene.inbox.try_recv, "send": scene.writer.abandon}
    handler.acts_within(looks.get(wait, lambda: _is_free(scene)), lambda: None)
    with pytest.raises(Enough):
        WAITING[wait](scene)
    scene.writer.abandon()
    assert scene.inbox.try_recv() is None
    scene.writer.send(1, 0, b"usable", 5)
    assert payload_of(scene.inbox) == b"usable"


_CRASH_OF_A_LIVENESS_THREAD = """
import ctypes, faulthandler, os, resource, signal, sys, time
from rings import make_page, make_scene
from mpspmd._ring import Liveness
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable()
segment, page = make_page(2)
before = set(os.listdir("/proc/self/task"))
liveness = Liveness.of_engine(page, (make_scene().ring,), 1, os.eventfd(0))
threads = sorted(set(os.listdir("/proc/self/task")) - before)
assert len(threads) == 3  # one holds, two watch
ctypes.CDLL(None).tgkill(os.getpid(), int(threads[int(sys.argv[1])]), int(sys.argv[2]))
time.sleep(10)
"""


_NOT_ASANS = "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0"


@pytest.mark.parametrize("thread", [0, 1])
@pytest.mark.parametrize("crash", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"])
def test_faulthandler_reports_a_crash_in_a_thread_of_liveness(crash: str, thread: int) -> None:
    number = signal.Signals[crash]
    done = subprocess.run(
        [sys.executable, "-c", _CRASH_OF_A_LIVENESS_THREAD, str(thread), str(number.value)],
        capture_output=True,
        text=True,
        timeout=30,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            # Under AddressSanitizer the crash is not to be its own either.
            "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:{_NOT_ASANS}".lstrip(":"),
        },
    )
    assert done.returncode == -number, done.stderr
    assert "Fatal Python error" in done.stderr
