"""ReplayEnd: the engine's end of the step codec, which follows recorded messages instead of making them."""

from __future__ import annotations

from typing import Any

from mpspmd.codec.delta import DeltaDecoder, ReplyOrder
from mpspmd.codec.objects import Message, Payload
from mpspmd.codec.steps import EngineEnd, ReplyContext, StepCodec

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
    """Only one thread may use it. `decode_reply` also decodes recorded replies: with the context of
    `follow`."""

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
