"""ReplayEngine: an engine that sends recorded messages."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from mpspmd.codec.objects import Message, decode
from mpspmd.codec.steps import ReplyContext, StepCodec
from mpspmd.engine.call import Call
from mpspmd.engine.engine import Engine
from mpspmd.engine.requests import RequestEncoder
from mpspmd.exceptions.fault import error_of
from mpspmd.recording.layout import Record
from mpspmd.replay.engine_end import ReplayEnd
from mpspmd.wire import KIND_ERROR, KIND_FLAGS, KIND_OUT_OF_BAND, KIND_STEP, ReplyRanks

_DIGEST_BYTES = 16
"""As RankContext's."""


class RecordedRequests(RequestEncoder):
    """Gives the engine the message that is to be sent next. Others it encodes as usual."""

    encodes_all = True

    def __init__(self, step_codec: StepCodec | None) -> None:
        self.replay_end = None if step_codec is None else ReplayEnd(step_codec)
        super().__init__(self.replay_end)
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
        """Call it before `send`. What the recorded replies to this request are decoded with."""
        end = self._requests.replay_end
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
        end = self._requests.replay_end
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
