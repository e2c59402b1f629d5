"""StepCodec: the delta codec between an engine and its ranks, for one class of requests and one of replies.

A request is encoded once and decoded by every rank, in order. A reply is encoded against the request
that it answers, and against the newest of the same rank's earlier replies that the engine has said, in
that request, to have got from every rank that was asked. So replies may be dropped, and may come while
the rank has decoded later requests already.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from mpspmd._delta import Plan
from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyBase, ReplyCodec, ReplyOrder
from mpspmd.codec.objects import Message, Payload
from mpspmd.wire import ReplyRanks

Orders: TypeAlias = Mapping[int, ReplyOrder | None]
"""What each rank has replied to one step."""

_Base: TypeAlias = tuple[int, list[str], Orders]
"""What replies to a request are against: check, scheduled keys, earlier orders."""

ReplyContext: TypeAlias = tuple[int, list[str], Orders, dict[int, ReplyOrder | None]]
"""What the replies to one request are decoded against, and what each rank's has said."""

_MAX_ORDERS = 64
"""How many replies a rank remembers that the engine hasn't said to have got."""

_Label: TypeAlias = tuple[str, ReplyRanks, tuple[int, ...]]
"""What goes beside a record: method, reply_ranks, further arguments that are numbers."""

# Few differ: a run's steps have the same label, again and again.
_label = functools.lru_cache(1000)(msgspec.msgpack.Encoder().encode)
_read_label = functools.lru_cache(1000)(msgspec.msgpack.Decoder(_Label).decode)


@dataclass(frozen=True)
class StepCodec:
    """Picklable. The engine and each rank make their ends of it.

    `request_class` is what a step's first argument must be an instance of, and `reply_class` a result,
    to be sent as deltas; their plans are made by functions that can be imported in every process.
    """

    request_class: type
    request_plan: Callable[[], Plan]
    reply_class: type
    reply_plan: Callable[[], Plan]

    def engine_end(self) -> EngineEnd:
        return EngineEnd(self)

    def rank_end(self) -> RankEnd:
        return RankEnd(self)


class EngineEnd:
    """Encodes requests, in the sending thread; decodes replies, in whichever thread reads them."""

    def __init__(self, codec: StepCodec) -> None:
        self._class = codec.request_class
        self._encoder = DeltaEncoder(codec.request_plan())
        self._replies = ReplyCodec(codec.reply_plan())
        self._sent: _Base = (0, [], {})
        self._current: _Base = self._sent
        self._newest: tuple[int, Orders] = (0, {})

    def __len__(self) -> int:
        """How many requests the ranks are known to hold."""
        return len(self._encoder)

    def encode(
        self,
        step: int,
        method: str | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
    ) -> Message | None:
        """A message, or None if this isn't a request that goes as a delta. EncodeError."""
        self._current = self._sent
        if not args or type(args[0]) is not self._class or not isinstance(method, str):
            return None
        numbers, extra = args[1:], None
        if kwargs or not _are_short_ints(numbers):
            numbers, extra = (), (args[1:], kwargs)
        replied, orders = self._newest
        message = self._encoder.encode(
            args[0],
            step - replied if replied else 0,
            _label((method, reply_ranks, numbers)),
            extra,
        )
        self._current = self._encoder.reply_base(orders)
        return message

    def reply_context(self) -> ReplyContext:
        """For the request that was given to encode() last, whether or not it goes as a delta."""
        return *self._current, {}

    def sent(self) -> None:
        """The message is on its way. If this isn't called, the ranks have never seen it."""
        self._sent = self._current
        self._encoder.sent()

    def send_anew(self) -> None:
        """Makes the next message a key frame."""
        self._encoder.reset()

    def decode_reply(
        self, context: ReplyContext, step: int, rank: int, payload: Payload, n_asked: int
    ) -> Any:
        """A new object. `n_asked`: how many ranks reply to the request. CodecDesync, DecodeError."""
        check, scheduled, orders, received = context
        value, received[rank] = self._replies.decode(payload, (check, scheduled, orders.get(rank)))
        if len(received) == n_asked and step > self._newest[0]:
            self._newest = (step, received)
        return value


def _are_short_ints(values: tuple[Any, ...]) -> bool:
    """A loop, because all() and its generator take longer than the rest of a label."""
    for value in values:  # noqa: SIM110
        if type(value) is not int or value.bit_length() > 62:
            return False
    return True


class RankEnd:
    """Decodes requests, in the rank's loop; encodes replies, in one thread, that one or another."""

    def __init__(self, codec: StepCodec) -> None:
        self._class = codec.reply_class
        self._decoder = DeltaDecoder(codec.request_plan())
        self._replies = ReplyCodec(codec.reply_plan())
        self._orders: dict[int, ReplyOrder | None] = {}
        self.reply_base: ReplyBase | None = None
        """Of the request that was decoded last."""

    def __len__(self) -> int:
        return len(self._decoder)

    def decode(
        self, step: int, payload: Payload
    ) -> tuple[str, tuple[Any, ...], dict[str, Any], ReplyRanks]:
        """(method, args, kwargs, reply_ranks). CodecDesync, DecodeError."""
        self.reply_base = None
        record, behind, label, extra = self._decoder.decode(payload)
        order = self._acknowledged(step - behind) if behind else None
        self.reply_base = self._decoder.reply_base(order)
        method, reply_ranks, numbers = _read_label(label)
        more, kwargs = (numbers, {}) if extra is None else extra
        return method, (record, *more), kwargs, reply_ranks

    def _acknowledged(self, step: int) -> ReplyOrder | None:
        """What this rank replied to a step; None if it wasn't asked."""
        orders = self._orders
        for older in list(orders):  # another thread may add to them
            if older >= step:
                break
            orders.pop(older, None)
        return orders.get(step)

    def encode_reply(self, step: int, value: Any, base: ReplyBase | None) -> Message | None:
        """A message, or None if this isn't a reply that goes as a delta. EncodeError."""
        if base is None or type(value) is not self._class:
            return None
        message, order = self._replies.encode(value, base)
        self._orders[step] = order
        for older in list(self._orders)[:-_MAX_ORDERS]:
            self._orders.pop(older, None)
        return message
