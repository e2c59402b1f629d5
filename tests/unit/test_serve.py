"""A rank's loop in the native module: what it does itself, and what it leaves to Python."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rings import is_read, make_page, make_scene

from mpspmd._ring import KIND_PACKED, KIND_REPLY, KIND_REQUEST, serve
from mpspmd.errors import ChannelClosed, ChannelPoisoned

pytestmark = pytest.mark.timeout(30)

LATER = object()


class Reply:
    """What the step codec would encode."""


class Rank:
    """One rank's ends in this thread; it is also its own worker. It serves until `end` is called."""

    def __init__(self) -> None:
        self.requests, self.replies = make_scene(), make_scene()
        segment, self.page = make_page(2)
        segment.close()
        self.line = self.page.line(1)
        self.line.open()
        self.failed: list[tuple[Any, ...]] = []
        self.replied: list[tuple[Any, ...]] = []
        self.decoded: list[tuple[Any, ...]] = []
        self.steps = 0
        self.ended = False

    def close(self) -> None:
        self.requests.segment.close()
        self.replies.segment.close()

    def ask(self, *request: Any) -> None:
        self.steps += 1
        assert self.requests.writer.send_packed(KIND_REQUEST, self.steps, request)

    def serve(self, **settings: Any) -> None:
        every: dict[str, Any] = {
            "requests": self.requests.inbox,
            "replies": self.replies.writer,
            "line": self.line,
            "rank": 1,
            "worker": self,
            "later": LATER,
            "reply_class": Reply,
            "receive": None,
            "decodes_all": False,
            "decode": self._decode,
            "fail": self._fail,
            "reply": lambda *reply: self.replied.append(reply),
        }
        serve(**{**every, **settings})

    def serves(self, *request: Any, **settings: Any) -> Any:
        """The reply to one request, or None if there is none in the ring."""
        self.ask(*request)
        self.ask("end", (), {}, None)
        self.serve(**settings)
        message = self.replies.inbox.try_recv()
        if message is None:
            return None
        _, kind, step, value = message
        assert (kind, step) == (KIND_REPLY | KIND_PACKED, self.steps - 1)
        return value

    def _decode(self, kind: int, step: int, payload: Any) -> Any:
        self.decoded.append((kind, step, payload))
        return None if payload == b"damaged" else (*payload, payload[0])

    def _fail(self, step: int, method: Any, name: str, ranks: Any, error: Any) -> None:
        self.failed.append((step, method, name, ranks, type(error), str(error)))

    # The worker's methods.

    def end(self) -> None:
        self.ended = True
        self.requests.inbox.interrupt()

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [*args, kwargs] if kwargs else args

    def fail(self, error: str) -> None:
        raise {"exit": SystemExit, "key": KeyboardInterrupt, "value": ValueError}[error](error)

    def later(self) -> object:
        return LATER

    def pair(self, kind: str) -> Any:
        return {"set": {1}, "reply": Reply()}[kind]

    def phase(self) -> str:
        line = self.line.snapshot()
        return f"{line['phase']} {line['method']} {line['step']}"


@pytest.fixture
def rank() -> Iterator[Rank]:
    rank = Rank()
    yield rank
    rank.close()


@pytest.mark.parametrize("n_args", [0, 1, 8, 9, 200])
def test_a_method_gets_its_arguments(rank: Rank, n_args: int) -> None:
    args = tuple(range(n_args))
    assert rank.serves("echo", args, {}, "all") == args
    assert rank.serves("echo", args, {"key": "word"}, "all") == [*args, {"key": "word"}]
    assert not rank.decoded


@pytest.mark.parametrize(
    ("ranks", "replies"),
    [("all", True), (1, True), (True, True), (0, False), (None, False), (1 << 60, False)],
)
def test_only_a_rank_that_is_asked_replies(rank: Rank, ranks: Any, replies: bool) -> None:
    assert (rank.serves("echo", (5,), {}, ranks) == (5,)) is replies
    assert rank.line.snapshot()["replies"] == replies


def test_other_threads_run_while_methods_run_no_python_code(rank: Rank) -> None:
    request = ("feed", (), {}, None)
    send = rank.requests.writer.send_packed
    rank.feed = functools.partial(send, KIND_REQUEST, 1, request)  # type: ignore[attr-defined]
    assert send(KIND_REQUEST, 1, request)
    timer = threading.Timer(0.01, rank.requests.ring.close)
    timer.start()
    with pytest.raises(ChannelClosed):
        rank.serve()
    timer.join()


def test_arguments_may_be_any_iterable_and_any_mapping(rank: Rank) -> None:
    assert rank.serves("echo", [1, 2], {}, "all") == (1, 2)
    assert rank.serves("echo", 5, {}, "all") is None
    assert rank.serves("echo", (), {5: 6}, "all") is None
    assert [failed[4] for failed in rank.failed] == [TypeError, TypeError]


def test_what_is_not_plain_is_decoded_and_sent_by_python(rank: Rank) -> None:
    assert rank.serves("pair", ("set",), {}, "all") is None
    assert rank.serves("pair", ("reply",), {}, "all") is None
    assert rank.serves("echo", (5,), {}, "all", replies=None) is None
    assert rank.replied[0] == (1, "pair", {1})
    assert isinstance(rank.replied[1][2], Reply)
    assert rank.replied[2] == (5, "echo", (5,))
    rank.requests.writer.send(KIND_REQUEST, 70, b"damaged")
    assert rank.serves("echo", (5,), {}, "all") == (5,)
    assert rank.decoded == [(KIND_REQUEST, 70, b"damaged")]


def test_a_packed_value_that_is_no_request_goes_to_python(rank: Rank) -> None:
    for value in (5, ("echo", (), {}), (5, (), {}, "all"), ["echo", (), {}, "all"]):
        rank.requests.writer.send_packed(KIND_REQUEST, 9, value)
    rank.serves("echo", (), {}, "all", decode=lambda *args: rank.decoded.append(args))
    assert len(rank.decoded) == 4


def test_the_status_line_tells_what_runs(rank: Rank) -> None:
    assert rank.serves("phase", (), {}, "all") == "running phase 1"
    assert rank.line.snapshot()["phase"] == "running"  # the interrupt came in a method


def test_a_name_without_utf8_is_shown_with_escapes(rank: Rank) -> None:
    rank.requests.writer.send(KIND_REQUEST, 7, b"pickle")
    rank.ask("end", (), {}, None)
    rank.serve(decode=lambda *_: (rank.phase, (), {}, "all", "\ud800"))
    message = rank.replies.inbox.try_recv()
    assert message is not None
    assert message[3] == "running \\ud800 7"


def test_what_a_method_raises_is_reported_and_the_next_request_is_served(rank: Rank) -> None:
    for error in ("value", "key"):
        rank.ask("fail", (error,), {}, "all")
    assert rank.serves("echo", (5,), {}, "all") == (5,)
    assert rank.failed == [
        (1, "fail", "fail", "all", ValueError, "value"),
        (2, "fail", "fail", "all", KeyboardInterrupt, "key"),
    ]


def test_a_method_that_is_missing_is_reported(rank: Rank) -> None:
    assert rank.serves("no_such_method", (), {}, 0) is None
    (failed,) = rank.failed
    assert failed[:5] == (1, "no_such_method", "no_such_method", 0, AttributeError)


def test_a_method_that_is_no_name_is_called(rank: Rank) -> None:
    def call(*args: Any) -> Any:
        return ["called", *args]

    rank.requests.writer.send(KIND_REQUEST, 7, b"pickle")
    rank.ask("end", (), {}, None)
    rank.serve(decode=lambda *_: (call, (1,), {}, "all", "its name"))
    message = rank.replies.inbox.try_recv()
    assert message is not None
    assert message[2:] == (7, ["called", 1])


def test_a_request_without_an_answer_later_has_none(rank: Rank) -> None:
    assert rank.serves("later", (), {}, "all") is None
    assert (rank.failed, rank.replied) == ([], [])


def test_an_interrupt_ends_it_before_the_next_request(rank: Rank) -> None:
    rank.ask("echo", (1,), {}, "all")
    rank.end()
    rank.serve()
    assert rank.replies.inbox.try_recv() is None
    rank.ask("end", (), {}, None)
    rank.serve()
    assert rank.replies.inbox.try_recv() is not None


def test_an_interrupt_by_another_thread_ends_its_wait(rank: Rank, eventually: Any) -> None:
    def interrupt() -> None:
        try:
            eventually(lambda: is_read(rank.requests.inbox), "it waits for a request")
        finally:
            rank.end()

    other = threading.Thread(target=interrupt)
    other.start()
    rank.serve()
    other.join()
    assert rank.line.snapshot()["phase"] == "waiting"


@pytest.mark.parametrize("where", ["method", "decode", "fail", "reply", "receive"])
def test_an_exit_ends_it_wherever_it_is_raised(rank: Rank, where: str) -> None:
    def leave(*_: Any) -> Any:
        raise SystemExit(7)

    requests = {"method": ("fail", ("exit",)), "fail": ("fail", ("value",))}
    rank.ask(*requests.get(where, ("pair", ("set",))), {}, "all")
    settings = {} if where == "method" else {where: leave}
    with pytest.raises(SystemExit):
        rank.serve(decodes_all=where == "decode", **settings)
    # Nothing is left in use: it goes on with the next request.
    while rank.requests.inbox.try_recv() is not None:
        pass
    assert rank.serves("echo", (5,), {}, "all") == (5,)


@pytest.mark.parametrize("error", [ChannelClosed, ChannelPoisoned])
def test_it_ends_with_its_ring_when_all_is_served(rank: Rank, error: type[Exception]) -> None:
    rank.ask("echo", (1,), {}, "all")
    if error is ChannelClosed:
        rank.requests.ring.close()
    else:
        rank.requests.ring.poison(3, 0)
    with pytest.raises(error):
        rank.serve()
    assert rank.replies.inbox.try_recv() is not None


def test_a_poisoned_reply_ring_is_no_error_of_the_method(rank: Rank) -> None:
    rank.replies.ring.poison(3, 0)
    rank.ask("echo", (1,), {}, "all")
    with pytest.raises(ChannelPoisoned):
        rank.serve()
    assert not rank.failed


def test_a_watched_rank_receives_by_its_own_function(rank: Rank) -> None:
    keys: list[int] = []

    def receive(timeout: float | None, key: int) -> Any:
        keys.append(key)
        return rank.requests.inbox.recv(timeout, key)

    assert rank.serves("echo", (1,), {}, "all", receive=receive) == (1,)
    assert keys == [0, hash("echo") % (1 << 64)]
    rank.ask("echo", (1,), {}, "all")
    with pytest.raises(TypeError, match="receive"):
        rank.serve(receive=lambda *_: (1, 2))


def test_a_forked_child_stops_at_once(rank: Rank) -> None:
    children: list[int] = []

    def fork() -> int:
        children.append(os.fork())
        return children[0]

    rank.phase = fork  # type: ignore[method-assign, assignment]
    rank.ask("phase", (), {}, 0)
    rank.ask("end", (), {}, None)
    parent = os.getpid()
    try:
        rank.serve()
    except RuntimeError as refused:
        if os.getpid() != parent:
            os._exit(42 if "forked" in str(refused) else 1)
        raise
    finally:
        if os.getpid() != parent:
            os._exit(2)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 42


def test_the_garbage_collector_may_run_at_any_time(rank: Rank) -> None:
    """Nearly each object that is made lets it collect, and a finalizer that it calls uses the rings."""

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            rank.replies.inbox.try_recv()
            rank.requests.inbox.interrupt()
            finalized.append(0)

    def echo(*args: Any) -> Any:
        Cycle()
        return [[each] for each in args]

    finalized: list[int] = []
    rank.echo = echo  # type: ignore[method-assign]
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(100):
            rank.ask("echo", (1, [2], {"three": (4,)}), {}, "all")
            rank.ask("fail", ("value",), {}, "all")
        rank.ask("end", (), {}, None)
        while not rank.ended:
            rank.serve()
    finally:
        gc.set_threshold(*before)
    assert len(finalized) > 50


def test_a_signals_handler_that_raises_ends_its_wait_and_nothing_stays_in_use(rank: Rank) -> None:
    class Came(BaseException):
        pass

    def handle(*_: object) -> None:
        raise Came

    def serve_until_signal(delay_s: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay_s)
        rank.serve()

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for delay_s in (0.001, 0.01, 0.05):
            with pytest.raises(Came):
                serve_until_signal(delay_s)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rank.serves("echo", (5,), {}, "all") == (5,)


class Counted:
    """Counts its instances."""

    alive = 0

    def __init__(self) -> None:
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1


@pytest.mark.parametrize("name", ["echo", "fail", "no_such_method", "a function"])
def test_no_argument_lives_on_while_the_next_request_is_waited_for(
    rank: Rank, eventually: Any, name: str
) -> None:
    def decode(kind: int, step: int, payload: Any) -> Any:
        method = rank.echo if payload[0] == "a function" else payload[0]
        return method, (Counted(),), {"key": Counted()}, payload[3], payload[0]

    def watch() -> None:
        try:
            assert served.wait(20)
            eventually(lambda: Counted.alive == 0, "the end of the arguments")
            gone.append(True)
        finally:
            rank.ask("end", (), {}, None)

    gone: list[bool] = []
    served = threading.Event()
    rank.end = lambda *_, **__: rank.requests.inbox.interrupt()  # type: ignore[method-assign]
    watcher = threading.Thread(target=watch)
    watcher.start()
    rank.ask(name, (), {}, "all")
    note = lambda *_: served.set()  # noqa: E731
    rank.serve(decode=decode, fail=note, reply=note, decodes_all=True)
    watcher.join()
    assert gone


def test_nothing_leaks_whatever_happens_to_a_request(rank: Rank) -> None:
    def decode(kind: int, step: int, payload: Any) -> Any:
        name = payload[0]
        method = name if name != "callable" else lambda *args, key: 1 / 0
        return method, (Counted(),), {"key": Counted()}, payload[3], name

    def ignore(*_: Any) -> None:
        pass

    def receive(timeout: float | None, key: int) -> Any:
        return rank.requests.inbox.recv(timeout, key)

    rank.end = lambda *_, **__: rank.requests.inbox.interrupt()  # type: ignore[method-assign]
    names = ("echo", "fail", "no_such_method", "callable", "later")
    watched = (*names, rank, None, LATER, Reply)
    held: list[int] = []
    for turn in range(40):
        if turn == 2:
            held = _reference_counts(watched)
        for name in names:
            for ranks in ("all", 1, None):
                rank.ask(name, (), {}, ranks)
        rank.ask("end", (), {}, None)
        if turn % 2:
            rank.serve(decode=decode, reply=ignore, fail=ignore, receive=receive, decodes_all=True)
        else:
            rank.serve(reply=ignore, fail=ignore)
        while rank.replies.inbox.try_recv() is not None:
            pass
    assert Counted.alive == 0
    for each, before, now in zip(watched, held, _reference_counts(watched), strict=True):
        assert now - before < 50, each  # a leak has hundreds


def _reference_counts(objects: tuple[Any, ...]) -> list[int]:
    """Without garbage of earlier tests, and without the interpreter's memory of the names that were looked
    up, which refers to None for each name that it has yet to take."""
    gc.collect()
    clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear_caches()
    return [sys.getrefcount(each) for each in objects]
