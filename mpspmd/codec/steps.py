"""StepCodec: the delta codec between an engine and its ranks, for one class of requests and one of replies.

A request is encoded once, and every rank decodes it, in order. A reply is encoded against the request that
it answers, and against an earlier reply of the same rank: the newest that, according to this request, the
engine has got from every rank that had to reply. So replies may be dropped, and may be encoded after the
rank has decoded later requests.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from mpspmd._delta import Plan
from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyBase, ReplyCodec, ReplyOrder
from mpspmd.codec.objects import Message, Payload
from mpspmd.wire import Method, ReplyRanks

Orders: TypeAlias = Mapping[int, ReplyOrder | None]
"""What each rank has replied to one step."""

_NO_ORDERS: Orders = {}
"""The engine hasn't got any reply that later ones may build on."""

_Base: TypeAlias = tuple[int, list[str], Orders]
"""What the replies to a request build on: check, scheduled keys, earlier orders."""

ReplyContext: TypeAlias = tuple[int, list[str], Orders, dict[int, ReplyOrder | None]]
"""What the replies to a request build on, and the order of each rank's reply so far."""

_MAX_ORDERS = 64
"""How many of its unacknowledged replies a rank remembers."""

_Label: TypeAlias = tuple[str, ReplyRanks, tuple[int, ...]]
"""What goes with a record: method, reply_ranks, further arguments that are numbers."""

# Cached, because nearly all steps of a run have the same label.
_label = functools.lru_cache(1000)(msgspec.msgpack.Encoder().encode)
_label_decoder: msgspec.msgpack.Decoder[_Label] = msgspec.msgpack.Decoder(_Label)
_read_label = functools.lru_cache(1000)(_label_decoder.decode)


@dataclass(frozen=True)
class StepCodec:
    """Picklable. The engine and each rank make their ends from it.

    A step goes as a delta if its first argument is a `request_class`, and its reply if it is a
    `reply_class`. The functions that make their plans must be importable in every process.
    """

    request_class: type
    request_plan: Callable[[], Plan]
    reply_class: type
    reply_plan: Callable[[], Plan]

    def engine_end(self) -> EngineEnd:
        return EngineEnd(self)

    def rank_end(self) -> RankEnd:
        return RankEnd(self)


@dataclass(frozen=True)
class PickledStepCodec:
    """The step codec of another node's engine, or None, as that engine has pickled it.

    Only a rank rebuilds it, because that may import for many seconds.
    """

    data: bytes

    def rank_end(self) -> RankEnd | None:
        codec: StepCodec | None = pickle.loads(self.data)
        return None if codec is None else codec.rank_end()


class EngineEnd:
    """Encodes requests, in the sending thread; decodes replies, in whichever thread reads them."""

    def __init__(self, codec: StepCodec) -> None:
        self._class = codec.request_class
        self._encoder = DeltaEncoder(codec.request_plan())
        self._replies = ReplyCodec(codec.reply_plan())
        self._sent: _Base = (0, [], {})
        self._current: _Base = self._sent
        self._newest: tuple[int, Orders] = (0, _NO_ORDERS)

    def __len__(self) -> int:
        """How many requests the ranks hold."""
        return len(self._encoder)

    def encode(
        self,
        step: int,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
    ) -> Message | None:
        """A message, or None if this request can't go as a delta. EncodeError."""
        self._current = self._sent
        if not args or type(args[0]) is not self._class or not isinstance(method, str):
            return None
        numbers, extra = args[1:], None
        if kwargs or not _are_short_ints(numbers):
            numbers, extra = (), (args[1:], kwargs)
        replied, orders = self._newest
        message = self._encoder.encode(
            args[0],
            0 if orders is _NO_ORDERS else step - replied,
            _label((method, reply_ranks, numbers)),
            extra,
        )
        self._current = self._encoder.reply_base(orders)
        return message

    def reply_context(self) -> ReplyContext:
        """The context of the last request that encode() got, whether or not it goes as a delta."""
        return *self._current, {}

    def sent(self) -> None:
        """Call it when the message has been sent. Otherwise the ranks are taken not to have seen it."""
        self._sent = self._current
        self._encoder.sent()

    def send_anew(self) -> None:
        """Makes the next message a key frame."""
        self._encoder.reset()

    def begin_anew(self, step: int) -> None:
        """Makes the next message a key frame. It is step number `step`, and from there on no message and no
        reply builds on an earlier reply."""
        self.send_anew()
        self._newest = (step - 1, _NO_ORDERS)

    def decode_reply(
        self, context: ReplyContext, step: int, rank: int, payload: Payload, n_asked: int
    ) -> Any:
        """A new object. `n_asked` is the number of ranks that reply. CodecDesync, DecodeError."""
        check, scheduled, orders, received = context
        value, received[rank] = self._replies.decode(payload, (check, scheduled, orders.get(rank)))
        if len(received) == n_asked and step > self._newest[0]:
            self._newest = (step, received)
        return value


def _are_short_ints(values: tuple[Any, ...]) -> bool:
    """Whether all fit into a label. A loop: all() and a generator take longer than the rest of a label."""
    for value in values:  # noqa: SIM110
        if type(value) is not int or value.bit_length() > 62:
            return False
    return True


class RankEnd:
    """Decodes requests in the rank's loop; encodes replies there or in one other thread."""

    def __init__(self, codec: StepCodec) -> None:
        self.reply_class = codec.reply_class
        self._decoder = DeltaDecoder(codec.request_plan())
        self._replies = ReplyCodec(codec.reply_plan())
        self._orders: dict[int, ReplyOrder | None] = {}
        self.reply_base: ReplyBase | None = None
        """What the reply to the request decoded last builds on."""

    def decode(
        self, step: int, payload: Payload
    ) -> tuple[str, tuple[Any, ...], dict[str, Any], ReplyRanks]:
        """(method, args, kwargs, reply_ranks). CodecDesync, DecodeError."""
        self.reply_base = None
        record, behind, label, extra = self._decoder.decode(payload)
        order = self._acknowledged(step - behind) if behind and self._orders else None
        self.reply_base = self._decoder.reply_base(order)
        method, reply_ranks, numbers = _read_label(label)
        more, kwargs = (numbers, {}) if extra is None else extra
        return method, (record, *more), kwargs, reply_ranks

    def _acknowledged(self, step: int) -> ReplyOrder | None:
        """The order of this rank's reply to a step, which the engine has got; None if it didn't reply."""
        orders = self._orders
        for older in list(orders):  # another thread may add to them
            if older >= step:
                break
            orders.pop(older, None)
        return orders.get(step)

    def encode_reply(self, step: int, value: Any, base: ReplyBase | None) -> Message | None:
        """A message, or None if this reply can't go as a delta. EncodeError."""
        if base is None or type(value) is not self.reply_class:
            return None
        message, order = self._replies.encode(value, base)
        self._orders[step] = order
        if len(self._orders) > _MAX_ORDERS:
            for older in list(self._orders)[:-_MAX_ORDERS]:
                self._orders.pop(older, None)
        return message
