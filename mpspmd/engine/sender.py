"""Sender: requests on their way to all ranks, in one order."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from mpspmd.engine.call import Call
from mpspmd.engine.future import StepFuture
from mpspmd.engine.outcome import Outcome
from mpspmd.engine.reader import Reader
from mpspmd.engine.requests import RequestEncoder
from mpspmd.engine.stall import StallWatch
from mpspmd.errors import ChannelError, StepTimeout
from mpspmd.transport.channel import EngineChannel
from mpspmd.wire import ExecuteModelRequest, ReplyRanks

_POLL_S = 0.001
"""How often a thread that reads replies for all sees whether another one's request has been sent."""

_SLICE_S = 0.2
"""How long another thread waits before it sees for itself whether that request has been sent."""


class Sender:
    """Any thread may send. One thread's whole message is in the ring before another thread's begins."""

    def __init__(
        self,
        channel: EngineChannel,
        reader: Reader,
        outcome: Outcome,
        stalls: StallWatch,
        encoder: RequestEncoder,
    ) -> None:
        self._channel = channel
        self._reader = reader
        self._outcome = outcome
        self._stalls = stalls
        self._world_size = channel.request_ring.n_readers
        self._encoder = encoder
        self._waiting: list[threading.Lock] = []
        """Of each thread that waits until another one has sent its request."""
        self._packs = not encoder.has_steps

    def send(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
        deadline: float | None,
        future: StepFuture[Any] | None = None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Call:
        """Returns when all of the request is in the ring. `deadline`: of time.monotonic().

        `future` gets the call's outcome, and with `keeps_late` also late replies. `ends` is the first call
        of the step whose last call this is.

        Raises:
            EncodeError, StepTimeout: No rank runs the request.
            RuntimeError: A signal's handler, or a destructor, sends while this thread already does.
            MpSpmdError: The cause, if the engine has failed or was shut down.
        """
        if self._packs and ends is None and not keeps_late and self._outcome.cause is None:
            reader = self._reader
            sent: Call | None = reader.send_plain(method, args, kwargs, reply_ranks, deadline)
            if sent is not None:
                reader.wake_reader()
                if future is not None:
                    future.follow(sent)
                return sent
        self._refuse_within_a_send()
        try:
            while not self._reader.begin_sending():
                self._wait_to_send(deadline)
            return self._send_now(
                method, args, kwargs, reply_ranks, deadline, future, ends, keeps_late
            )
        finally:
            # The first call here: a signal's handler can't raise before it has returned.
            self._reader.end_sending()
            if self._waiting:
                self._wake_waiting()
            if self._reader.untold:
                self._reader.tell_untold()

    def _send_now(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
        deadline: float | None,
        future: StepFuture[Any] | None,
        ends: Call | None,
        keeps_late: bool,
    ) -> Call:
        """Only for the thread that is the sender."""
        if self._outcome.cause is not None:
            self._outcome.raise_cause()
        step = self._reader.steps + 1
        kind, message = self._encoder.encode(step, method, args, kwargs, reply_ranks)
        self._reader.steps = step
        name = method if isinstance(method, str) else _name_of(method)
        large = isinstance(message, list)
        n_bytes = 0 if large else len(message)
        call = Call(step, name, reply_ranks, self._world_size, deadline, n_bytes)
        if ends is not None:
            call.closes = ends
        if (context := self._encoder.reply_context()) is not None:
            call.reply_context = context
        if future is not None:
            if keeps_late:
                call.keeps_late = True
            future.follow(call)
        # Before it is sent: the reply may be there before try_send() returns.
        if reply_ranks is not None:
            self._reader.expect(call)
        try:
            if not self._channel.requests.try_send(kind, step, message):
                self._send_slowly(call)
            self._channel.status.sent(step)
        except BaseException as error:
            self._reader.forget(call, error)
            self._channel.requests.abandon()
            if isinstance(error, ChannelError):
                self._outcome.raise_cause(error)
            raise
        self._encoder.sent(kind)
        return call

    def send_anew(self) -> None:
        """Makes the next step a key frame."""
        self._refuse_within_a_send()
        try:
            while not self._reader.begin_sending():
                self._wait_to_send(None)
            self._encoder.send_anew()
        finally:
            self._reader.end_sending()
            if self._waiting:
                self._wake_waiting()

    def _refuse_within_a_send(self) -> None:
        if self._reader.sender == threading.get_ident():
            raise RuntimeError(
                "a signal's handler or a destructor may not use an engine while its own thread sends a "
                "request to it: that request would never go on; let the handler note the signal instead"
            )

    def _wait_to_send(self, deadline: float | None) -> None:
        """Until another thread has sent its request, or it may have. StepTimeout."""
        if self._reader.leader == threading.get_ident():
            # A future's callback. That request may wait for ranks whose replies this thread has to read.
            self._reader.read_now()
            self._raise_if_late(deadline)
            time.sleep(_POLL_S)
            return
        turn = threading.Lock()
        turn.acquire()
        try:
            self._waiting.append(turn)
            # Check after appending: whoever ends its sending after this releases `turn`.
            if self._reader.sender:
                left = None if deadline is None else deadline - time.monotonic()
                # In slices: a signal's handler may have kept the sender from releasing it.
                turn.acquire(timeout=_SLICE_S if left is None else min(max(left, 0), _SLICE_S))
        finally:
            self._waiting.remove(turn)
        self._raise_if_late(deadline)

    def _raise_if_late(self, deadline: float | None) -> None:
        if self._reader.sender and deadline is not None and deadline <= time.monotonic():
            raise StepTimeout("timed out while another thread's request waited for space")

    def _wake_waiting(self) -> None:
        for turn in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # it has been released already
                turn.release()

    def _send_slowly(self, call: Call) -> None:
        """Waits for space. Ranks may wait for space in their reply rings, so it takes replies meanwhile."""
        requests = self._channel.requests
        self._reader.sender_waits = True
        try:
            while not requests.resume():
                with self._reader.leading() as leads:
                    if leads:
                        self._reader.drain()
                    watched = self._channel.replies if leads else None
                    if not requests.wait(watched, call.seconds_left()):
                        raise self._stalls.timeout(call, "there was no space for the request")
        finally:
            self._reader.sender_waits = False


def _name_of(method: Callable[..., Any]) -> str:
    return ExecuteModelRequest(0, method).method_name
