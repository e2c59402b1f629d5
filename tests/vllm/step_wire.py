"""Wire: vLLM's steps and outputs through the codec, from an engine to two ranks and back."""

from __future__ import annotations

from typing import Any

from mpspmd.codec.steps import ReplyContext, StepCodec
from mpspmd.vllm.step_codec import step_codec


class Wire:
    """An engine's end and two ranks' ends. What a rank decodes is spoiled by whoever used it."""

    def __init__(self, codec: StepCodec | None = None) -> None:
        codec = codec or step_codec()
        self.engine = codec.engine_end()
        self.ranks = [codec.rank_end() for _ in range(2)]
        self.bases: dict[int, tuple[ReplyContext, Any]] = {}
        self.sizes: list[int] = []

    def send(self, step: int, request: Any) -> list[Any]:
        message = _joined(self.engine.encode(step, "execute_model", (request, step), {}, 1))
        context = self.engine.reply_context()
        self.engine.sent()
        self.sizes.append(len(message))
        received = [rank.decode(step, message) for rank in self.ranks]
        assert all(each[0] == "execute_model" for each in received)
        assert all(each[1][1:] == (step,) and each[2:] == ({}, 1) for each in received)
        self.bases[step] = context, self.ranks[1].reply_base
        return [each[1][0] for each in received]

    def reply(self, step: int, output: Any, arrives: bool = True) -> Any:
        context, base = self.bases.pop(step)
        message = _joined(self.ranks[1].encode_reply(step, output, base))
        return self.engine.decode_reply(context, step, 1, message, 1) if arrives else None


def _joined(message: Any) -> bytes:
    assert message is not None
    return b"".join(map(bytes, message)) if isinstance(message, list) else bytes(message)
