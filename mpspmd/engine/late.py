"""LateReplies: what comes of replies that no call waits for any more."""

from __future__ import annotations

from typing import Any

from mpspmd.codec.objects import decode
from mpspmd.codec.steps import EngineEnd
from mpspmd.engine.call import NO_REPLY, Call, CallTable
from mpspmd.exceptions.fault import error_of
from mpspmd.exceptions.foreign import is_perhaps_a_signals
from mpspmd.wire import KIND_ERROR, KIND_FLAGS, KIND_OUT_OF_BAND, KIND_PACKED, KIND_STEP


class LateReplies:
    """Only for the thread that reads replies."""

    def __init__(self, table: CallTable, step_codec: EngineEnd | None) -> None:
        self._table = table
        self._step_codec = step_codec

    def take(self, rank: int, kind: int, step: int, payload: Any) -> None:
        """A failed call may keep the reply; otherwise it is dropped."""
        self._table.late += 1
        call = self._table.kept.get(step)
        if call is None:
            return
        try:
            call.replies[rank] = self._read(call, rank, kind, payload)
        except BaseException as undecodable:
            if is_perhaps_a_signals(undecodable):
                raise
            call.replies[rank] = undecodable
        if all(reply is not NO_REPLY for reply in call.replies):  # no more can come
            self._table.kept.pop(step, None)

    def _read(self, call: Call, rank: int, kind: int, payload: Any) -> Any:
        """What the reply holds."""
        if kind & KIND_PACKED:
            value = payload
        elif kind & KIND_STEP and self._step_codec is not None and call.reply_context is not None:
            value = self._step_codec.decode_reply(
                call.reply_context, call.step, rank, payload, call.asked
            )
        else:
            value = decode(payload, kind & KIND_OUT_OF_BAND != 0)
        return error_of(value) if kind & ~KIND_FLAGS == KIND_ERROR else value
