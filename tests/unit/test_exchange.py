"""Plain requests and their replies in the native module, without an engine: this thread plays the ranks."""

from __future__ import annotations

import functools
import gc
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rings import make_page, make_scene

from mpspmd._ring import (
    KIND_PACKED,
    KIND_REPLY,
    KIND_REQUEST,
    KIND_STEP,
    NO_REPLY,
    Call,
    Exchange,
)
from mpspmd.errors import ChannelClosed, ChannelPoisoned

pytestmark = pytest.mark.timeout(30)


class Came(BaseException):
    """What a signal's handler raises."""


def _decode(
    decoded: list[tuple[Any, ...]], context: str, step: int, rank: int, payload: Any, asked: int
) -> str:
    decoded.append((context, step, rank, bytes(payload), asked))
    if payload == b"damaged":
        raise KeyError("damaged")
    return f"decoded {len(payload)}"


class Engine(Exchange):
    """One rank's engine, which notes what the exchange leaves to Python."""

    def __init__(self, capacity: int = 1 << 16, reply_capacity: int = 1 << 16) -> None:
        self.to_rank = make_scene(capacity=capacity)
        self.to_engine = make_scene(capacity=reply_capacity)
        segment, self.page = make_page(1)
        segment.close()
        self.pending: dict[int, Call] = {}
        self.taken: list[tuple[Any, ...]] = []
        self.finished: list[Call] = []
        self.handed_over = 0
        self.decoded: list[tuple[Any, ...]] = []
        decode = functools.partial(_decode, self.decoded)
        ends = self.to_rank.writer, self.to_engine.inbox, self.page
        super().__init__(*ends, self.pending, Call, decode)

    def close(self) -> None:
        self.to_rank.segment.close()
        self.to_engine.segment.close()

    def take(self, *message: Any) -> None:
        self.taken.append(message)

    def finish(self, call: Call) -> None:
        self.finished.append(self.pending.pop(call.step))
        call.done = True

    def hand_over(self) -> None:
        self.handed_over += 1

    def sends(self, *args: Any, reply_ranks: Any = "all", deadline: float | None = None) -> Any:
        return self.send_plain("echo", args, {}, reply_ranks, deadline)

    def sends_encoded(self, message: Any = b"delta", context: Any = None) -> Any:
        return self.send_encoded(KIND_REQUEST | KIND_STEP, message, "step", "all", None, context)

    def reads_for(self, call: Any, limit: Any = None, tells: bool = False) -> bool:
        return self.read_for(call, limit, tells)

    def replies(self, step: int, value: Any = None) -> None:
        assert self.to_engine.writer.send_packed(KIND_REPLY, step, value)

    def sent(self) -> list[tuple[int, Any]]:
        """(step, request) of what is in the request ring."""
        sent = []
        while (message := self.to_rank.inbox.try_recv()) is not None:
            _, kind, step, request = message
            assert kind == KIND_REQUEST | KIND_PACKED
            sent.append((step, request))
        return sent


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def test_a_plain_request_is_numbered_sent_and_awaited(engine: Engine) -> None:
    before = time.monotonic()
    calls = [engine.sends(1, "two"), engine.sends(reply_ranks=0, deadline=before + 9)]
    assert engine.sent() == [
        (1, ("echo", (1, "two"), {}, "all")),
        (2, ("echo", (), {}, 0)),
    ]
    assert engine.pending == {1: calls[0], 2: calls[1]}
    assert (engine.steps, engine.page.steps) == (2, 2)
    first, second = calls
    assert (first.step, first.method, first.ranks, first.deadline) == (1, "echo", "all", None)
    assert (second.ranks, second.deadline) == (0, before + 9)
    assert (first.asked, first.missing, first.replies, first.done) == (1, 1, [NO_REPLY], False)
    assert before <= first.began <= time.monotonic()
    assert first.key != second.key  # by the size of the request


def test_a_request_without_replies_is_not_awaited(engine: Engine) -> None:
    call = engine.sends(reply_ranks=None)
    assert (call.step, engine.pending) == (1, {})
    assert len(engine.sent()) == 1


def _full(engine: Engine) -> None:
    while engine.to_rank.writer.try_send(1, 0, bytes(4096)):
        pass


@pytest.mark.parametrize(
    ("why", "args"),
    [
        (lambda engine: None, ({1},)),
        (lambda engine: None, (bytes(1 << 15),)),
        (lambda engine: engine.begin_sending(), (1,)),
        (_full, (1,)),
        (lambda engine: engine.to_rank.ring.close(), (1,)),
        (lambda engine: engine.to_rank.ring.poison(1, 0), (1,)),
    ],
    ids=["not plain", "large", "another thread sends", "no space", "closed", "poisoned"],
)
def test_any_other_request_is_left_to_python(engine: Engine, why: Any, args: Any) -> None:
    why(engine)
    tail = engine.to_rank.ring.tail
    assert engine.sends(*args) is None
    assert (engine.pending, engine.steps, engine.page.steps) == ({}, 0, 0)
    assert engine.to_rank.ring.tail == tail


@pytest.mark.parametrize("method", [print, type("Name", (str,), {})("echo"), 5, b"echo"])
def test_only_a_method_that_is_a_str_is_plain(engine: Engine, method: Any) -> None:
    assert engine.send_plain(method, (), {}, "all", None) is None


def test_an_encoded_request_is_sent_as_it_is_and_awaited(engine: Engine) -> None:
    engine.begin_sending()
    before = time.monotonic()
    call = engine.sends_encoded(context="context")
    assert engine.to_rank.inbox.try_recv() == (0, KIND_REQUEST | KIND_STEP, 1, b"delta")
    assert (call.step, call.method, call.ranks, call.reply_context) == (1, "step", "all", "context")
    assert before <= call.began <= time.monotonic()
    assert call.key == Call(1, "step", "all", 1, None, len(b"delta")).key
    assert (engine.pending, engine.steps, engine.page.steps) == ({1: call}, 1, 1)
    assert engine.sends_encoded().reply_context is None


@pytest.mark.parametrize(
    ("why", "message"),
    [
        (lambda engine: None, [b"in", b"parts"]),
        (lambda engine: None, bytes(1 << 15)),
        (_full, b"delta"),
        (lambda engine: engine.to_rank.ring.close(), b"delta"),
        (lambda engine: engine.to_rank.ring.poison(1, 0), b"delta"),
    ],
    ids=["no bytes", "large", "no space", "closed", "poisoned"],
)
def test_an_encoded_request_that_must_wait_is_left_to_python(
    engine: Engine, why: Any, message: Any
) -> None:
    engine.begin_sending()
    why(engine)
    tail = engine.to_rank.ring.tail
    assert engine.sends_encoded(message) is None
    assert (engine.pending, engine.steps, engine.page.steps) == ({}, 0, 0)
    assert engine.to_rank.ring.tail == tail


def test_only_the_sender_sends_what_is_encoded(engine: Engine) -> None:
    with pytest.raises(TypeError, match="only by the sender"):
        engine.sends_encoded()
    with ThreadPoolExecutor() as pool:
        assert pool.submit(engine.begin_sending).result()
    with pytest.raises(TypeError, match="only by the sender"):
        engine.sends_encoded()
    assert (engine.pending, engine.steps) == ({}, 0)


@pytest.mark.parametrize("n_bytes", [5, 10_000], ids=["copied", "in the ring"])
def test_a_reply_of_the_step_codec_is_decoded_with_its_calls_context(
    engine: Engine, n_bytes: int
) -> None:
    engine.begin_sending()
    call = engine.sends_encoded(context="context")
    reply = bytes(n_bytes)
    engine.to_engine.writer.send(KIND_REPLY | KIND_STEP, 1, reply)
    assert engine.reads_for(call)
    assert call.replies == [f"decoded {n_bytes}"]
    assert engine.decoded == [("context", 1, 0, reply, 1)]
    assert (engine.taken, engine.pending) == ([], {})
    assert engine.to_engine.ring.heads[0] == engine.to_engine.ring.tail


def test_what_decoding_a_reply_raises_is_left_to_python(engine: Engine) -> None:
    engine.begin_sending()
    with_context, without = engine.sends_encoded(context="context"), engine.sends_encoded()
    for step in (1, 2):
        engine.to_engine.writer.send(KIND_REPLY | KIND_STEP, step, b"damaged")
        engine.replies(step, "reply")
    assert engine.reads_for(without)
    (*first, error), second = engine.taken
    assert first == [0, KIND_REPLY | KIND_STEP, 1, b"damaged"]
    assert isinstance(error, KeyError)
    assert second == (0, KIND_REPLY | KIND_STEP, 2, b"damaged")
    assert len(engine.decoded) == 1
    assert with_context.replies == without.replies == ["reply"]


@pytest.mark.parametrize("n_bytes", [5, 10_000], ids=["copied", "in the ring"])
def test_a_message_that_could_not_be_noted_is_noted_and_taken_by_the_next_reader(
    engine: Engine, n_bytes: int
) -> None:
    def note(rank: int, kind: int, step: int, payload: Any) -> None:
        noted.append((rank, kind, step, bytes(payload)))
        if len(noted) == 1:
            raise Came

    noted: list[tuple[Any, ...]] = []
    engine.note_reply = note
    engine.begin_sending()
    call = engine.sends_encoded(context="context")
    reply = bytes(n_bytes)
    engine.to_engine.writer.send(KIND_REPLY | KIND_STEP, 1, reply)
    with pytest.raises(Came):
        engine.reads_for(call)
    assert (engine.leader, engine.decoded, call.replies) == (0, [], [NO_REPLY])
    assert engine.reads_for(call)
    assert noted == [(0, KIND_REPLY | KIND_STEP, 1, reply)] * 2
    assert call.replies == [f"decoded {n_bytes}"]
    assert engine.to_engine.ring.heads[0] == engine.to_engine.ring.tail


def test_a_call_gets_its_own_reply_in_whatever_order_they_come(engine: Engine) -> None:
    calls = [engine.sends(i) for i in range(3)]
    for step in (3, 1, 2):
        engine.replies(step, [step])
    for step in (1, 2, 3):
        call = calls[step - 1]
        assert engine.reads_for(call) is True
        assert (call.done, call.missing, call.replies) == (True, 0, [[step]])
    assert (engine.pending, engine.taken, engine.leader) == ({}, [], 0)


def test_what_is_no_plain_reply_to_a_call_is_left_to_python(engine: Engine) -> None:
    call = engine.sends()
    engine.replies(77, "late")
    engine.to_engine.writer.send(KIND_REPLY, 1, b"pickle")
    engine.to_engine.writer.send_packed(3, 1, "error")
    engine.replies(1, "reply")
    assert engine.reads_for(call)
    assert engine.taken == [
        (0, KIND_REPLY | KIND_PACKED, 77, "late"),
        (0, KIND_REPLY, 1, b"pickle"),
        (0, 3 | KIND_PACKED, 1, "error"),
    ]
    assert call.replies == ["reply"]
    engine.replies(1, "once more")
    assert not engine.reads_for(engine.sends(), time.monotonic())
    assert engine.taken[3:] == [(0, KIND_REPLY | KIND_PACKED, 1, "once more")]


def test_a_call_that_has_more_to_do_at_its_end_is_finished_by_python(engine: Engine) -> None:
    calls = [engine.sends() for _ in range(4)]
    calls[0].later = [calls[1]]
    calls[1].closes = calls[0]
    calls[2].kept_future = object()
    for call in calls:
        engine.replies(call.step)
        assert engine.reads_for(call)
    assert engine.finished == calls[:3]


def test_the_future_for_which_somebody_waits_is_kept_to_be_told(engine: Engine) -> None:
    calls = [engine.sends() for _ in range(3)]
    future = calls[1].kept_future = object()
    calls[0].kept_future = object()
    calls[0].kept_future = None
    assert engine.end(calls[0], None)
    assert engine.untold == []
    assert engine.end(calls[1], KeyError())
    assert not engine.end(calls[1], None)
    assert engine.untold == [future]


def test_the_thread_that_tells_reads_only_while_there_is_nothing_to_tell(engine: Engine) -> None:
    calls = [engine.sends() for _ in range(3)]
    engine.untold.append(object())
    assert engine.reads_for(calls[1], tells=True)
    assert engine.leader == 0
    assert not calls[1].done
    engine.replies(2)
    assert engine.reads_for(calls[1])
    assert calls[1].done
    engine.untold.clear()
    engine.replies(3)
    assert engine.reads_for(calls[2], tells=True)
    assert calls[2].done


def test_the_thread_that_tells_need_not_wait_for_its_turn(engine: Engine) -> None:
    call = engine.sends()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(engine.lead).result()
        assert not engine.reads_for(call, tells=True)
        engine.untold.append(object())
        assert engine.reads_for(call, tells=True)
        assert not engine.reads_for(call)
        assert not call.done
        other.submit(engine.stop_leading).result()


class Failing(Call):
    def raise_error(self) -> None:
        assert self.error is not None
        raise self.error


def test_a_call_has_the_replies_that_it_asked_for_or_raises_its_error() -> None:
    calls = [Failing(1, "m", ranks, 3, None, 0) for ranks in ("all", 2, None, 3, 1 << 80)]
    for call in calls:
        call.replies[:] = ["a", "b", "c"]
    everyone, one, nobody, *nowhere = calls
    assert everyone.outcome() is everyone.replies
    assert one.outcome() == "c"
    assert nobody.outcome() is nobody.replies
    for call in nowhere:
        with pytest.raises((IndexError, OverflowError)):
            call.outcome()
    one.error = KeyError("of a rank")
    with pytest.raises(KeyError, match="of a rank"):
        one.outcome()
    one.error = None
    assert one.outcome() == "c"
    plain = Call(1, "m", 0, 1, None, 0)
    plain.error = KeyError()
    with pytest.raises(AttributeError, match="raise_error"):
        plain.outcome()


def test_a_thread_that_waits_for_its_turn_is_woken(engine: Engine) -> None:
    call = engine.sends()
    engine.followers.append(threading.Lock())
    engine.replies(1)
    assert engine.reads_for(call)
    assert (engine.finished, engine.handed_over) == ([call], 1)
    assert not engine.reads_for(engine.sends(), time.monotonic())
    assert engine.handed_over == 2


def test_only_one_thread_leads(engine: Engine) -> None:
    call = engine.sends()
    assert engine.lead()
    assert engine.lead()  # as a future's callback does
    assert engine.leader == threading.get_ident()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(engine.reads_for, call).result() is False
        assert pool.submit(engine.lead).result() is False
    engine.replies(1)
    assert engine.reads_for(call)  # as a future's callback does
    assert engine.leader == threading.get_ident()
    engine.stop_leading()
    assert engine.leader == 0


@pytest.mark.parametrize(("deadline", "limit"), [(0.05, None), (None, 0.05), (9, 0.05), (0.05, 9)])
def test_it_waits_until_the_earlier_of_two_times(
    engine: Engine, deadline: float | None, limit: float | None
) -> None:
    now = time.monotonic()
    call = engine.sends(deadline=None if deadline is None else now + deadline)
    assert not engine.reads_for(call, None if limit is None else now + limit)
    assert now + 0.05 <= time.monotonic() < now + 5
    assert (engine.leader, engine.pending) == (0, {1: call})


@pytest.mark.parametrize("limit", [0, -1, -math.inf, math.nan])
def test_a_time_that_has_passed_lets_it_take_what_has_come(engine: Engine, limit: float) -> None:
    call = engine.sends()
    assert not engine.reads_for(call, limit)
    engine.replies(1)
    assert engine.reads_for(call, limit)


def test_a_call_that_another_thread_ends_is_done(engine: Engine) -> None:
    call = engine.sends()

    def end() -> None:
        while not engine.leader:
            time.sleep(0.001)
        call.done = True
        engine.to_engine.inbox.interrupt()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end)
        assert engine.reads_for(call, time.monotonic() + 10)
        ended.result()


@pytest.mark.parametrize("end", [ChannelClosed, ChannelPoisoned])
def test_the_end_of_the_ring_ends_it(engine: Engine, end: type[Exception]) -> None:
    calls = [engine.sends(), engine.sends()]
    engine.replies(1)
    engine.to_engine.ring.close() if end is ChannelClosed else engine.to_engine.ring.poison(1, 0)
    assert engine.reads_for(calls[0])
    with pytest.raises(end):
        engine.reads_for(calls[1])
    assert engine.leader == 0


def test_what_is_raised_for_one_message_ends_it_and_nothing_stays_in_use(engine: Engine) -> None:
    call = engine.sends()

    def take(*message: Any) -> None:
        raise KeyError(message[2])

    engine.take = take  # type: ignore[method-assign]
    engine.replies(70)
    engine.replies(1)
    with pytest.raises(KeyError, match="70"):
        engine.reads_for(call)
    assert (engine.leader, call.done) == (0, False)
    assert engine.reads_for(call)


def test_what_is_raised_at_the_deadline_is_not_taken_for_the_calls_own(engine: Engine) -> None:
    def take(*message: Any) -> None:
        raise TimeoutError("a handler's")

    call = engine.sends()
    engine.take = take  # type: ignore[method-assign]
    engine.replies(70)
    with pytest.raises(TimeoutError, match="a handler's"):
        engine.reads_for(call, 0)
    assert not engine.reads_for(call, 0)


def test_messages_that_two_handlers_have_left_are_both_for_the_next_reader(engine: Engine) -> None:
    """The second handler interrupts the first, which reads while a message is taken."""
    ours, theirs, another = engine.sends(), engine.sends(), engine.sends()
    taking: list[int] = []

    def take(rank: int, kind: int, step: int, payload: Any, raised: Any = None) -> None:
        taking.append(step)
        if len(taking) == 1:
            engine.reads_for(another)
        raise Came

    for step, reply in ((1, b"ours"), (2, b"theirs")):
        engine.to_engine.writer.send(KIND_REPLY, step, reply)
    engine.replies(3)
    engine.take = take  # type: ignore[method-assign]
    with pytest.raises(Came):
        engine.reads_for(ours)
    assert taking == [1, 2]
    del engine.take
    for call in (another, ours, theirs):
        engine.reads_for(call, 0)
    assert sorted(engine.taken)[:2] == [(0, KIND_REPLY, 1, b"ours"), (0, KIND_REPLY, 2, b"theirs")]


def test_a_call_that_one_reader_cannot_finish_is_finished_by_the_next(engine: Engine) -> None:
    """As when the one is near its limit of recursion."""

    def fail(call: Call) -> None:
        raise RecursionError

    theirs, own = engine.sends(), engine.sends()
    theirs.kept_future = object()
    engine.replies(1, "reply")
    engine.finish = fail  # type: ignore[method-assign]
    with pytest.raises(RecursionError):
        engine.reads_for(own, time.monotonic() + 5)
    del engine.finish
    assert engine.reads_for(theirs, time.monotonic() + 5)
    assert (theirs.replies, engine.finished, engine.leader) == (["reply"], [theirs], 0)
    engine.replies(2)
    assert engine.reads_for(own, time.monotonic() + 5)


def test_a_signals_handler_waits_for_few_of_many_messages() -> None:
    def handle(*_: object) -> None:
        raise Came

    def read_interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        engine.reads_for(calls[-1])

    engine = Engine(reply_capacity=1 << 25)
    calls = [Call(step, "echo", "all", 1, None, 0) for step in range(1, 100_000)]
    engine.pending.update((call.step, call) for call in calls)
    for call in calls:
        engine.replies(call.step)
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(Came):
            read_interrupted()
        assert len(engine.pending) > 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        engine.close()


def test_an_exception_of_a_signals_handler_leaves_no_leader(engine: Engine) -> None:
    def handle(*_: object) -> None:
        raise Came

    def interrupt(delay_s: float) -> None:
        while not engine.leader:
            time.sleep(0.0001)
        time.sleep(delay_s)
        signal.pthread_kill(main, signal.SIGALRM)

    def read_interrupted(pool: ThreadPoolExecutor, delay_s: float) -> None:
        pool.submit(interrupt, delay_s)
        engine.reads_for(call, time.monotonic() + 10)

    main = threading.get_ident()
    call = engine.sends()
    engine.followers.append(threading.Lock())
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with ThreadPoolExecutor(1) as pool:
            for delay_s in (0, 0.001, 0.01, 0.05):
                with pytest.raises(Came):
                    read_interrupted(pool, delay_s)
                assert engine.leader == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert engine.handed_over == 4
    engine.replies(1)
    assert engine.reads_for(call)


def test_what_handing_over_raises_is_raised(engine: Engine) -> None:
    def hand_over() -> None:
        raise Came

    engine.hand_over = hand_over  # type: ignore[method-assign]
    engine.followers.append(threading.Lock())
    with pytest.raises(Came):
        engine.reads_for(engine.sends(), time.monotonic())
    assert engine.leader == 0


def test_finalizers_that_send_while_a_call_is_made_get_steps_of_their_own(engine: Engine) -> None:
    """Nearly each object that is made lets the garbage collector run, whose finalizer sends."""

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            if threading.get_ident() == this:  # another thread's allocation may run the collector
                calls.append(engine.sends("finalizer"))

    this = threading.get_ident()
    calls: list[Any] = []
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(100):
            Cycle()
            calls.append(engine.sends("caller", number))
    finally:
        gc.set_threshold(*before)
    steps = [call.step for call in calls]
    assert len(steps) > 120  # from CPython 3.13 on every second cycle is collected in time
    assert sorted(steps) == list(range(1, len(steps) + 1))
    sent = engine.sent()
    assert [step for step, _ in sent] == list(range(1, len(steps) + 1))
    for call in calls:
        assert engine.pending[call.step] is call


def test_finalizers_that_read_while_replies_come_take_nothing_of_others(engine: Engine) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            if threading.get_ident() != this:  # another thread's allocation may run the collector
                return
            call = engine.sends()
            engine.replies(call.step, "finalizer")
            assert engine.reads_for(call, time.monotonic() + 5)
            read.append(call.replies)

    this = threading.get_ident()
    read: list[Any] = []
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(200):
            call = engine.sends()
            engine.replies(call.step, [[number], {"x": number}])
            Cycle()
            assert engine.reads_for(call, time.monotonic() + 5)
            assert call.replies == [[[number], {"x": number}]]
    finally:
        gc.set_threshold(*before)
    assert len(read) > 100
    assert all(replies == ["finalizer"] for replies in read)


def test_a_call_in_a_circle_is_collected(engine: Engine) -> None:
    class Counted:
        def __del__(self) -> None:
            ended.append(0)

    ended: list[int] = []
    for place in ("later", "closes", "error", "kept_future", "reply_context"):
        call = Call(1, "m", "all", 2, None, 0)
        error = Exception(call, Counted())
        setattr(call, place, [error] if place == "later" else error)
        call.replies[0] = call
        call.note_error(0, error)
    del call, error
    gc.collect()
    assert len(ended) == 5


def _sender_that_is_not_made() -> Exchange:
    exchange = Exchange.__new__(Exchange)
    assert exchange.begin_sending()
    return exchange


@pytest.mark.parametrize(
    "use",
    [
        lambda engine: Call(1, "m", "all", 0, None, 0),
        lambda engine: Call(1, "m", "all", 1, None, -1),
        lambda engine: Call("1", "m", "all", 1, None, 1),
        lambda engine: Exchange.__new__(Exchange).send_plain("m", (), {}, "all", None),
        lambda engine: Exchange.__new__(Exchange).read_for(None, None, False),
        lambda engine: Exchange.__new__(Exchange).stop_leading(),
        lambda engine: Engine.__init__(engine),
        lambda engine: Exchange(*[None] * 6),
        lambda engine: engine.reads_for(None),
        lambda engine: engine.reads_for(engine.sends(), "soon"),
        lambda engine: engine.send_plain("m"),
        lambda engine: _sender_that_is_not_made().send_encoded(1, b"", "m", "all", None, None),
        lambda engine: engine.send_encoded(1, b""),
    ],
)
def test_misuse_is_refused(engine: Engine, use: Any) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        use(engine)
    assert engine.leader == 0


def test_nothing_leaks(engine: Engine) -> None:
    argument, reply_ranks = ("argument", 5), "all"
    watched = (argument, reply_ranks, None, NO_REPLY, Call, Engine, engine.pending, engine)
    held: list[int] = []
    for turn in range(300):
        if turn == 2:
            held = [sys.getrefcount(each) for each in watched]
        for method in ("echo", print):
            call = engine.send_plain(method, argument, {"x": [1]}, reply_ranks, None)
            if call is None:
                continue
            assert not engine.reads_for(call, 0)
            engine.followers[:] = [threading.Lock()] * (turn % 2)
            engine.replies(call.step, "reply")
            engine.replies(call.step, "late")
            assert engine.reads_for(call)
        assert engine.begin_sending()
        assert engine.sends() is None
        assert engine.sends_encoded([]) is None
        call = engine.sends_encoded(context=argument)
        engine.end_sending()
        for reply in (b"damaged", b"delta"):
            engine.to_engine.writer.send(KIND_REPLY | KIND_STEP, call.step, reply)
        assert engine.reads_for(call)
        while engine.to_rank.inbox.try_recv() is not None:
            pass
        engine.decoded.clear()
        engine.finished.clear()
        engine.taken.clear()
        del call
    for each, before in zip(watched, held, strict=True):
        assert abs(sys.getrefcount(each) - before) < 50, each  # a leak has hundreds


def test_of_several_threads_one_sends_and_only_that_one_ends_it(engine: Engine) -> None:
    assert engine.begin_sending()
    assert engine.sender == threading.get_ident()
    began: list[bool] = []

    def other() -> None:
        began.append(engine.begin_sending())
        engine.end_sending()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert began == [False]
    assert engine.sender == threading.get_ident()
    engine.end_sending()
    assert engine.sender == 0
