"""Sender: requests on their way to all ranks, in one order."""

from __future__ import annotations

import sys
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

_ANOTHER_WAITED = "timed out while another thread's request waited for space"

_POLL_S = 0.001
"""How often a thread that reads replies for all sees whether another one's request has been sent."""


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
        self._sending = reader.sending
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
        # Only `with` surely releases the lock if a signal's handler raises.
        while self._sending.locked():
            self._wait_to_send(deadline)
        with self._sending:
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
        with self._sending:
            self._encoder.send_anew()

    def _wait_to_send(self, deadline: float | None) -> None:
        """Until the request of another thread is out. StepTimeout, RuntimeError: as send()."""
        if self._is_sent_by_this_thread():
            raise RuntimeError(
                "a signal's handler or a destructor may not use an engine while its own thread sends a "
                "request to it: that request would never go on; let the handler note the signal instead"
            )
        if self._reader.leader == threading.get_ident():
            # A future's callback. That request may wait for ranks whose replies this thread has to read.
            self._read_while_another_sends(deadline)
            return
        if deadline is None:
            with self._sending:
                return
        if not self._sending.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StepTimeout(_ANOTHER_WAITED)
        self._sending.release()

    def _read_while_another_sends(self, deadline: float | None) -> None:
        while self._sending.locked():
            if deadline is not None and deadline <= time.monotonic():
                raise StepTimeout(_ANOTHER_WAITED)
            self._reader.read_now()
            time.sleep(_POLL_S)

    def _is_sent_by_this_thread(self) -> bool:
        """Whether a send() further down this thread's stack holds the lock. It is searched for only when
        the lock is taken, because noting the holder would cost each request time."""
        above, frame = None, sys._getframe(2).f_back  # above the send() that waits for the lock
        while frame is not None:
            sends = frame.f_code is Sender.send.__code__ and frame.f_locals.get("self") is self
            if sends and above is not Sender._wait_to_send.__code__:
                return True
            above, frame = frame.f_code, frame.f_back
        return False

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
