"""Reader: how threads share the reading of replies.

One thread at a time reads for all: it leads. A thread whose own reply has come hands over to one that
still waits. So a single caller reads its reply itself, with no other thread in between.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from mpspmd._ring import Exchange
from mpspmd.codec.objects import decode
from mpspmd.codec.steps import EngineEnd
from mpspmd.engine.blame import first_cause
from mpspmd.engine.call import NO_REPLY, Call, CallTable
from mpspmd.engine.event_queue import EventQueue
from mpspmd.engine.events import Raised
from mpspmd.engine.late import LateReplies
from mpspmd.engine.stall import StallWatch
from mpspmd.errors import ChannelError, DecodeError
from mpspmd.exceptions.fault import error_of
from mpspmd.exceptions.foreign import is_perhaps_a_signals
from mpspmd.threads import start_thread, start_thread_or_call
from mpspmd.transport.channel import EngineChannel
from mpspmd.turns import let_go_on, let_others_go_on, wait_for_turn
from mpspmd.wire import KIND_ERROR, KIND_FLAGS, KIND_OUT_OF_BAND, KIND_PACKED

_KIND_MASK = ~KIND_FLAGS

_SLICE_S = 0.2
"""How long the reader thread reads for one call before it sees which one is the most urgent."""

_CALLBACKS_S = 2.0
"""Callbacks delay a shutdown by at most this. One of them may wait for the thread that shuts down."""

_POLL_S = 0.001
"""How often the reader thread sees whether the supervisor has ended the calls of a run that is over."""


class Reader(Exchange):
    """Any thread. It matches replies with the calls in the table, and finishes the calls. If a rank has
    replied an exception, it tells the supervisor, which decides how the call ends."""

    def __init__(
        self,
        channel: EngineChannel,
        table: CallTable,
        events: EventQueue,
        stalls: StallWatch,
        step_codec: EngineEnd | None = None,
    ) -> None:
        decode_reply = None if step_codec is None else step_codec.decode_reply
        super().__init__(
            channel.requests, channel.replies, channel.status, table.pending, Call, decode_reply
        )
        self._requests, self._inbox = channel.requests, channel.replies
        self._table = table
        self._pending = table.pending
        self._events = events
        self._stalls = stalls
        self._late = LateReplies(table, step_codec)
        # Reentrant: a signal's handler or a finalizer may add a callback while this thread holds it.
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        # Locked while there is nothing to do. No Event: the handler of a signal that raises in one of its
        # methods may leave it locked, and then no thread could send any more.
        self._idle = threading.Lock()
        self._idle.acquire()
        self._ended = False
        self._is_over = False
        """The reader thread is about to end. Whoever has something to tell from now on starts a thread."""

    def expect(self, call: Call) -> None:
        """Call this before the request is sent: its reply may come before the sending returns."""
        self._pending[call.step] = call
        self.wake_reader()

    def wake_reader(self) -> None:
        """There is a call to read for."""
        if self._thread is not None:
            let_go_on(self._idle)

    def forget(self, call: Call, error: BaseException) -> None:
        """Ends a call whose request wasn't sent. Wakes the leader, which may wait for this very call."""
        call.closes = None  # The step doesn't end: its last call may be sent again.
        self.finish_now(call, error)

    def link(self, call: Call, first: Call) -> None:
        """`call` fails when `first` does: now, if that has happened already."""
        if first.later is None:
            first.later = []
        first.later.append(call)
        # Check after linking: a thread that fails `first` from now on fails `call` too.
        if first.done and first.error is not None:
            self.finish_now(call, first.error)

    def finish(self, call: Call, error: BaseException | None = None) -> bool:
        """Ends a call, and those of its step that end with it. False if it has been ended already. Replies
        that come later are dropped."""
        was_done = call.done
        if error is not None and call.keeps_late and not was_done:
            # Before it ends: from then on another thread may read what comes late.
            self._table.keep(call)
        # Before it ends: if a signal's handler raises here, the call stays pending, and is finished again.
        if (first := call.closes) is not None and not was_done:
            self.finish(first)
        try:
            return self.end(call, error)
        finally:
            # Ask the call: a signal's handler may raise as soon as end() has returned.
            if call.done and not was_done:
                self._after_end(call, error)

    def _after_end(self, call: Call, error: BaseException | None) -> None:
        """Ends the calls that fail with this one, and wakes the threads that wait for it."""
        try:
            # A step's calls must not refer to each other in a cycle, which would keep their replies alive.
            if later := call.later:
                call.later = None
                if error is not None:
                    for each in later:
                        self.finish(each, error)
        finally:
            if call.kept_future is not None:  # end() has put it into `untold`
                self._wake_teller()
            if self.followers:
                self.hand_over()

    def tell_later(self, future: Any) -> None:
        """The future's call is done, and somebody has begun to wait for it."""
        self.untold.append(future)
        let_go_on(self._idle)
        self._wake_teller()
        self.hand_over()

    def _wake_teller(self) -> None:
        """Lets the reader thread tell the futures in `untold`. No other thread does: that one neither reads
        nor sends when it calls callbacks, and no signal's handler runs in it."""
        if threading.current_thread() is self._thread:
            return  # it looks into `untold` after what it does now
        if self._is_over:
            start_thread_or_call(self._tell_untold, name="mpspmd-callbacks")
        elif self.leader not in (0, threading.get_ident()):  # perhaps the reader thread
            self._inbox.interrupt()

    def _tell_untold(self) -> None:
        while self.untold:
            try:
                future = self.untold.pop(0)
            except IndexError:  # another thread has taken the last one
                return
            if isinstance(future, weakref.ref):
                future = future()
            if future is not None:
                future.tell()

    def finish_now(self, call: Call, error: BaseException) -> None:
        """As finish(), in a thread that isn't the leader. Wakes the leader, which may wait for it."""
        if self.finish(call, error):
            self._inbox.interrupt()

    def stop(self) -> None:
        """Nobody waits for replies any more."""
        self._ended = True
        self._inbox.interrupt()
        let_go_on(self._idle)

    def join(self) -> None:
        """After stop(). Lets the callbacks that are left be called, for up to two seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CALLBACKS_S)

    def wait_for(self, call: Call, limit: float | None, *, tells: bool = False) -> bool:
        """Waits until the call is done, at the latest at its own deadline, or with `tells` until there is a
        future in `untold`. Until then this thread leads or follows. False if it is `limit`, of
        time.monotonic(), and the call isn't done. ChannelError when the run has ended."""
        while not self.read_for(call, limit, tells):
            self._follow(call, limit, tells)
            now = time.monotonic()
            is_late = limit is not None and limit <= now
            if is_late or (call.deadline is not None and call.deadline <= now):
                self.expire()
            # At the call's own deadline another thread may be about to end it: go on waiting for that.
            if is_late and not call.done:
                return False
        return True

    def expire(self) -> None:
        """Ends the calls whose deadline has passed."""
        now = time.monotonic()
        for call in self._table.all():
            if call.deadline is not None and call.deadline <= now:
                if call.errors:  # what a rank has raised says more
                    self.finish(call, first_cause(call.errors)[1])
                else:
                    what = "not every awaited rank has replied"
                    self.finish(call, self._stalls.timeout(call, what))

    def read_now(self) -> None:
        """Takes the replies that have come, without waiting. If another thread leads, it takes them."""
        with self.leading() as leads:
            if leads:
                self.drain()
        if leads and self.sender_waits:
            self._requests.interrupt()  # nobody reads now: it must take replies itself
        self.expire()

    @contextlib.contextmanager
    def leading(self) -> Iterator[bool]:
        """In the body this thread leads, unless another one does. Yields whether it leads and may read."""
        this = threading.get_ident()
        led_before = self.leader == this
        try:
            yield self.lead()
        finally:
            # Ask whether it leads: a signal's handler may raise as soon as lead() has returned.
            if not led_before and self.leader == this:
                self.stop_leading()

    def start_reader(self) -> None:
        """From now on a thread reads whenever anything is awaited, and tells the futures for which somebody
        waits. RuntimeError when no more threads can be started."""
        with self._starting:
            if self._thread is None:
                self._thread = start_thread(self._read_always, name="mpspmd-reader")
        let_go_on(self._idle)

    def _read_always(self) -> None:
        # Here, because start_reader() doesn't get there if a signal's handler raises in it.
        self._thread = threading.current_thread()
        while not self._ended:
            self._idle.acquire()
            while self._read_most_urgent():
                pass
        self._is_over = True
        self._tell_untold()
        let_go_on(self._idle)  # if a handler or a finalizer has started a second reader thread

    def _read_most_urgent(self) -> bool:
        """Reads until the call with the earliest deadline is done, and tells futures. False if there is
        nothing to do.

        A method of its own, so that no local variable keeps a call alive while the thread waits.
        """
        # Look for calls first: when a call leaves the table, its future is in `untold`.
        calls = self._table.all()
        self._tell_untold()
        if not calls or self._ended:
            return False
        first = min(calls, key=lambda call: call.deadline or math.inf)
        del calls
        # In slices: a call that is sent meanwhile may have an earlier deadline.
        until = time.monotonic() + _SLICE_S
        try:
            while not first.done and time.monotonic() < until:
                self.wait_for(first, until, tells=True)
                self._tell_untold()
        except ChannelError:
            time.sleep(_POLL_S)  # the supervisor is about to end the calls
        return True

    def _follow(self, call: Call, limit: float | None, tells: bool) -> None:
        """Waits until the call is done, nobody leads, or it is the call's deadline or `limit`; with `tells`
        also until there is a future in `untold`."""
        until = call.deadline
        if limit is not None and (until is None or limit < until):
            until = limit

        def must_wait() -> bool:
            return self.leader != 0 and not call.done and not (tells and self.untold)

        wait_for_turn(self.followers, must_wait, until)

    def hand_over(self) -> None:
        """Call it when this thread has stopped leading, or has ended a call."""
        let_others_go_on(self.followers)

    def take(
        self, rank: int, kind: int, step: int, payload: Any, raised: BaseException | None = None
    ) -> None:
        """Takes a message of a rank. The caller then releases its record in the ring, and finishes the call
        if it has all replies. Only for the leader. `raised`: by the step codec, which has decoded it."""
        call = self._pending.get(step)
        if call is None:
            self._late.take(rank, kind, step, payload)
            return
        error: Exception | None = None
        interrupt: BaseException | None = None
        try:
            if raised is not None:
                raise raised
            packed = kind & KIND_PACKED
            value = payload if packed else decode(payload, kind & KIND_OUT_OF_BAND != 0)
            if kind & _KIND_MASK == KIND_ERROR:
                error = error_of(value)
            else:
                call.replies[rank] = value
                call.missing -= 1
        except Exception as undecodable:
            error = undecodable
        except BaseException as end:
            # Such as KeyboardInterrupt: the reply is lost, and this call may be another thread's.
            error = DecodeError(f"a reply can't be rebuilt here: {type(end).__name__} was raised")
            interrupt = end
        if error is not None:
            call.replies[rank] = error
            try:
                self._table.note_error(call, rank, error)
                self._events.put(Raised(rank, step, call.method, error, awaited=True))
            except BaseException:
                # A signal's handler. The next reader takes this message: it may be another thread's.
                call.replies[rank] = NO_REPLY
                raise
            if interrupt is not None and is_perhaps_a_signals(interrupt):
                raise interrupt
