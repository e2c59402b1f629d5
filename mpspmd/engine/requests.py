"""RequestEncoder: requests as messages, by the step codec or by the object codec."""

from __future__ import annotations

from typing import Any

from mpspmd._ring import pack
from mpspmd.codec.objects import Message, ObjectEncoder
from mpspmd.codec.steps import EngineEnd, ReplyContext
from mpspmd.wire import KIND_OUT_OF_BAND, KIND_PACKED, KIND_REQUEST, KIND_STEP, Method, ReplyRanks

_LARGE_REQUEST = KIND_REQUEST | KIND_OUT_OF_BAND
_PACKED_REQUEST = KIND_REQUEST | KIND_PACKED
_STEP_REQUEST = KIND_REQUEST | KIND_STEP


class RequestEncoder:
    """For the thread that sends. Each message is sent, or given up, before the next one is encoded.

    `by_value`: the ranks can't import the main module, so its classes and functions are pickled by value.
    """

    def __init__(self, step_end: EngineEnd | None, by_value: bool = False) -> None:
        self._by_value = by_value
        self._encoder = ObjectEncoder()
        self.step_end = step_end

    def encode(
        self,
        step: int,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
    ) -> tuple[int, Message, ReplyContext | None]:
        """The message's kind, its payload, and what the replies to it will be decoded with. EncodeError."""
        context = None
        if (step_end := self.step_end) is not None:
            message = step_end.encode(step, method, args, kwargs, reply_ranks)
            context = step_end.reply_context()
            if message is not None:
                return _STEP_REQUEST, message, context
        request = (method, args, kwargs, reply_ranks)
        if (packed := pack(request)) is not None:
            return _PACKED_REQUEST, packed, context
        message = self._encoder.encode(
            request, by_value=self._by_value or not isinstance(method, str)
        )
        kind = _LARGE_REQUEST if isinstance(message, list) else KIND_REQUEST
        return kind, message, context

    @property
    def encodes_all(self) -> bool:
        """Whether plain requests must come here too, and may not be sent by `Exchange.send_plain`."""
        return self.step_end is not None

    def send_anew(self) -> None:
        """Makes the next step a key frame."""
        if self.step_end is not None:
            self.step_end.send_anew()

    def sent(self, kind: int) -> None:
        """Call this when the last message is in the ring. Otherwise the next step is a key frame."""
        if kind == _STEP_REQUEST and self.step_end is not None:
            self.step_end.sent()
