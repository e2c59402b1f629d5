"""ReplayEnd: the engine's end of the step codec, which follows recorded messages instead of making them."""

from __future__ import annotations

from typing import Any

from mpspmd.codec.delta import DeltaDecoder, ReplyCodec, ReplyOrder
from mpspmd.codec.objects import Message, Payload
from mpspmd.codec.steps import EngineEnd, ReplyContext, StepCodec

_Base = tuple[int, list[str], int]
"""What the replies to a request build on: check, scheduled keys, the step of an earlier reply or 0."""


class Replies:
    """Decodes the replies of one run, recorded or replayed, each against the run's own earlier ones."""

    def __init__(self, codec: ReplyCodec) -> None:
        self._codec = codec
        self._orders: dict[int, dict[int, ReplyOrder | None]] = {}

    def context(self, base: _Base, step: int) -> ReplyContext:
        """What the replies to this step are decoded with."""
        check, keys, earlier = base
        for old in [each for each in self._orders if each < earlier]:
            del self._orders[old]
        orders = self._orders.setdefault(step, {})
        return check, keys, self._orders.get(earlier, {}), orders

    def decode(self, context: ReplyContext, rank: int, payload: Payload) -> Any:
        """CodecDesync, DecodeError."""
        check, keys, orders, received = context
        value, received[rank] = self._codec.decode(payload, (check, keys, orders.get(rank)))
        return value


class ReplayEnd(EngineEnd):
    """One thread."""

    def __init__(self, codec: StepCodec) -> None:
        super().__init__(codec)
        self._decoder = DeltaDecoder(codec.request_plan())
        replies = ReplyCodec(codec.reply_plan())
        self._replayed = Replies(replies)
        self.recorded = Replies(replies)
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
        return self.recorded.context(self._base, step)

    def encode(self, *request: Any) -> Message | None:
        """Only the messages that were recorded are sent as deltas."""
        return None

    def reply_context(self) -> ReplyContext:
        return self._replayed.context(self._base, self._step)

    def sent(self) -> None:
        """There is nothing to note: `follow` has done it."""

    def decode_reply(
        self, context: ReplyContext, step: int, rank: int, payload: Payload, n_asked: int
    ) -> Any:
        return self._replayed.decode(context, rank, payload)
