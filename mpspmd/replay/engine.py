"""ReplayEngine: an engine that sends recorded messages, and follows what their replies build on."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from mpspmd.codec.delta import DeltaDecoder, ReplyOrder
from mpspmd.codec.objects import Message, Payload, decode
from mpspmd.codec.steps import EngineEnd, ReplyContext, StepCodec
from mpspmd.engine.call import Call
from mpspmd.engine.engine import Engine
from mpspmd.engine.requests import RequestEncoder
from mpspmd.exceptions.fault import error_of
from mpspmd.recording.layout import Record
from mpspmd.wire import KIND_ERROR, KIND_FLAGS, KIND_OUT_OF_BAND, KIND_STEP, ReplyRanks

_DIGEST_BYTES = 16
"""As a rank's, see rank/process.py."""

_Base = tuple[int, list[str], int]
"""What the replies to a request build on: check, scheduled keys, the step of an earlier reply or 0."""


class _Replies:
    """The orders of one run's replies, recorded or replayed: later replies of the run build on them."""

    def __init__(self) -> None:
        self._orders: dict[int, dict[int, ReplyOrder | None]] = {}

    def context(self, base: _Base, step: int) -> ReplyContext:
        """What the replies to this step are decoded with."""
        check, keys, earlier = base
        for old in [each for each in self._orders if each < earlier]:
            del self._orders[old]
        orders = self._orders.setdefault(step, {})
        return check, keys, self._orders.get(earlier, {}), orders


class ReplayEnd(EngineEnd):
    """Only one thread may use it. With the context that `follow` returns, `decode_reply` also decodes
    recorded replies."""

    def __init__(self, codec: StepCodec) -> None:
        super().__init__(codec)
        self._decoder = DeltaDecoder(codec.request_plan())
        self._recorded = _Replies()
        self._replayed = _Replies()
        self._step = 0
        self._base: _Base = (0, [], 0)

    def follow(self, step: int, payload: Payload | None) -> ReplyContext:
        """Call it for each request, before it is sent. `payload`: of a message of the step codec. Returns
        what its recorded replies are decoded with. CodecDesync, DecodeError."""
        self._step = step
        if payload is not None:
            _, behind, _, _ = self._decoder.decode(payload)
            check, keys, _ = self._decoder.reply_base(None)
            self._base = (check, keys, step - behind if behind else 0)
        return self._recorded.context(self._base, step)

    def encode(self, *request: Any) -> Message | None:
        """Only the messages that were recorded are sent as deltas."""
        return None

    def reply_context(self) -> ReplyContext:
        return self._replayed.context(self._base, self._step)

    def sent(self) -> None:
        """There is nothing to note: `follow` has done it."""


class RecordedRequests(RequestEncoder):
    """Gives the engine the message that is to be sent next. Others it encodes as usual."""

    encodes_all = True
    step_end: ReplayEnd | None

    def __init__(self, step_codec: StepCodec | None) -> None:
        super().__init__(None if step_codec is None else ReplayEnd(step_codec))
        self.next: Record | None = None
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def encode(self, *request: Any) -> tuple[int, Message, ReplyContext | None]:
        record, self.next = self.next, None
        kind, message, context = super().encode(*request)
        if record is not None:
            kind, message = record.kind, record.payload
        for part in message if isinstance(message, list) else (message,):
            self._digest.update(part)
        return kind, message, context

    @property
    def digest(self) -> str:
        """Of all messages so far, as `RankContext.request_digest()`."""
        return self._digest.hexdigest()


class ReplayEngine(Engine):
    """Only one thread may use it."""

    _requests: RecordedRequests

    def _make_encoder(self, step_codec: StepCodec | None, by_value: bool) -> RequestEncoder:
        self._requests = RecordedRequests(step_codec)
        return self._requests

    def follow(self, record: Record) -> ReplyContext | None:
        """Call it before `send`. Returns what the recorded replies to this request are decoded with."""
        end = self._requests.step_end
        if end is None:
            return None
        return end.follow(record.step, record.payload if record.kind & KIND_STEP else None)

    def send(self, record: Record, reply_ranks: ReplyRanks, timeout: float) -> Call:
        """Sends a recorded request. `steps.outcome` and `steps.forget` take the call, if ranks reply."""
        self._requests.next = record
        self._reader.steps = record.step - 1
        return self._sending.send(record.name, (), {}, reply_ranks, time.monotonic() + timeout)

    def decode_recorded(self, record: Record, context: ReplyContext | None) -> Any:
        """What a recorded reply holds; a RankError if the rank has raised. DecodeError."""
        end = self._requests.step_end
        if record.kind & KIND_STEP and end is not None and context is not None:
            # n_asked=0: no message builds on this reply.
            return end.decode_reply(context, record.step, record.rank, record.payload, n_asked=0)
        value = decode(record.payload, record.kind & KIND_OUT_OF_BAND != 0)
        return error_of(value) if record.kind & ~KIND_FLAGS == KIND_ERROR else value

    def ranks_got_the_same(self, timeout: float | None) -> bool | None:
        """Whether each rank's digest of all requests is that of what was sent; None if it has none."""
        digests = self.call(_request_digest, timeout=timeout)
        return None if None in digests else set(digests) == {self._requests.digest}


def _request_digest(worker: Any) -> str | None:
    ctx = getattr(worker, "ctx", None)
    return ctx.request_digest() if ctx is not None else None
