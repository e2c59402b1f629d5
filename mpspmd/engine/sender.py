"""Sender: requests on their way to all ranks, in one order."""

from __future__ import annotations

import threading
import time
from typing import Any

from mpspmd.codec.objects import Message
from mpspmd.engine.call import Call, check_arguments
from mpspmd.engine.outcome import RunOutcome
from mpspmd.engine.reader import Reader
from mpspmd.engine.requests import RequestEncoder
from mpspmd.engine.stall import StallWatch
from mpspmd.errors import ChannelError, ConfigError, StepTimeout
from mpspmd.transport.channel import EngineChannel
from mpspmd.turns import Turns, let_others_go_on, wait_for_turn
from mpspmd.wire import Method, ReplyRanks, name_of

_POLL_S = 0.001
"""How often a thread that reads replies for all sees whether another one's request has been sent."""


class Sender:
    """Any thread may send. One thread's whole message is in the ring before another thread's begins."""

    def __init__(
        self,
        channel: EngineChannel,
        reader: Reader,
        outcome: RunOutcome,
        stalls: StallWatch,
        encoder: RequestEncoder,
    ) -> None:
        self._channel = channel
        self._reader = reader
        self._run_outcome = outcome
        self._stalls = stalls
        self._world_size = channel.request_ring.n_readers
        self._encoder = encoder
        self._waiting: Turns = []
        self._packs = not encoder.encodes_all

    def send(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
        deadline: float | None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Call:
        """Returns when all of the request is in the ring. `deadline`: of time.monotonic().

        `ends` is the first call of the step whose last call this is. `keeps_late` as for StepCalls.call.

        Raises:
            ConfigError, EncodeError, StepTimeout: No rank runs the request.
            RuntimeError: A signal's handler, or a destructor, sends while this thread already does.
            MpSpmdError: The cause, if the engine has failed or was shut down.
        """
        reader = self._reader
        if self._packs and ends is None and not keeps_late and self._run_outcome.cause is None:
            sent: Call | None = reader.send_plain(method, args, kwargs, reply_ranks, deadline)
            if sent is not None:
                reader.wake_reader()
                return sent
        _check(method, args, kwargs)
        if reader.sender:
            self._refuse_within_a_send()
        try:
            if not reader.begin_sending():
                self._take_turn(deadline)
            if self._run_outcome.cause is not None:
                self._run_outcome.raise_cause()
            step = reader.steps + 1
            kind, message, context = self._encoder.encode(step, method, args, kwargs, reply_ranks)
            name = method if isinstance(method, str) else name_of(method)
            if ends is None and not keeps_late:
                call: Call | None = reader.send_encoded(
                    kind, message, name, reply_ranks, deadline, context
                )
                if call is not None:
                    self._encoder.sent(kind)
                    reader.wake_reader()
                    return call
            reader.steps = step
            n_bytes = 0 if isinstance(message, list) else len(message)
            call = Call(step, name, reply_ranks, self._world_size, deadline, n_bytes)
            call.closes = ends
            call.reply_context = context
            call.keeps_late = keeps_late
            self._put(call, kind, message)
            return call
        finally:
            # This call comes first: a signal's handler can't raise before it has returned.
            reader.end_sending()
            if self._waiting:
                let_others_go_on(self._waiting)

    def send_anew(self) -> None:
        """Makes the next step a key frame."""
        self._refuse_within_a_send()
        try:
            self._take_turn(None)
            self._encoder.send_anew()
        finally:
            self._reader.end_sending()
            let_others_go_on(self._waiting)

    def _refuse_within_a_send(self) -> None:
        if self._reader.sender == threading.get_ident():
            raise RuntimeError(
                "a signal's handler or a destructor may not use an engine while its own thread sends a "
                "request to it: that request would never go on; let the handler note the signal instead"
            )

    def _take_turn(self, deadline: float | None) -> None:
        """Returns when this thread is the sender. StepTimeout."""
        reader = self._reader
        while not reader.begin_sending():
            if reader.leader == threading.get_ident():
                # This is a finalizer or a signal's handler in the thread that reads replies. The other
                # thread's request may wait for ranks, and these for this thread to read their replies.
                reader.read_now()
                time.sleep(_POLL_S)
                is_late = deadline is not None and deadline <= time.monotonic() and reader.sender
            else:
                is_late = not wait_for_turn(self._waiting, lambda: reader.sender != 0, deadline)
            if is_late:
                raise StepTimeout("timed out while another thread's request waited for space")

    def _put(self, call: Call, kind: int, message: Message) -> None:
        """Returns when all of the request is in the ring."""
        # Before it is sent: the reply may be there before try_send() returns.
        if call.ranks is not None:
            self._reader.expect(call)
        try:
            if not self._channel.requests.try_send(kind, call.step, message):
                self._send_slowly(call)
            self._channel.status.sent(call.step)
        except BaseException as error:
            self._reader.forget(call, error)
            self._channel.requests.abandon()
            if isinstance(error, ChannelError):
                self._run_outcome.raise_cause(error)
            raise
        self._encoder.sent(kind)

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


def _check(method: object, args: object, kwargs: object) -> None:
    """ConfigError for what can't be a call. `send_plain` hasn't sent it."""
    if not isinstance(method, str) and not callable(method):
        raise ConfigError(f"method={method!r}: must be a method's name, or a callable")
    check_arguments(args, kwargs)
