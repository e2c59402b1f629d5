"""Every field of vLLM's steps and outputs through the codec, with each kind of value that it may have.

The table knows all versions' fields; a field of a later version that isn't in it fails a test here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from same import assert_same
from vllm import PoolingParams, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.outputs import (
    KVConnectorOutput,
    LogprobsLists,
    LogprobsTensors,
    ModelRunnerOutput,
)

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyCodec
from mpspmd.vllm.step_codec import reply_plan, request_plan


@dataclass
class Metadata:
    """In the place of what a connector sends."""

    loads: dict[str, Any]


def metadata() -> Metadata:
    return Metadata({"a": np.arange(3), "b": torch.ones(300)})


STEP: dict[str, list[Any]] = {
    "scheduled_new_reqs": [],
    "scheduled_cached_reqs": [],
    "num_scheduled_tokens": [{"a": 1, "b": 300}, {"b": 1, "a": 2**20}],
    "total_num_scheduled_tokens": [301, 1, 2**40],
    "scheduled_spec_decode_tokens": [{"a": [1, -1], "b": []}, {"b": [-1] * 9}],
    "scheduled_encoder_inputs": [{"a": [0, 2]}, {"b": []}],
    "finished_req_ids": [{"a"}, {"never-sent", "b"}],
    "free_encoder_mm_hashes": [["hash", "other"]],
    "encoder_input_updates": [{"a": {0: None, 3: metadata()}}, {"b": {}}, {"a": {1: None}}],
    "scheduled_encoder_input_stats": [metadata()],
    "preempted_req_ids": [set(), {"a"}, {"x", "b"}],
    "has_structured_output_requests": [True],
    "pending_structured_output_tokens": [True],
    "num_invalid_spec_tokens": [{}, {"a": 2}],
    "kv_connector_metadata": [metadata()],
    "has_sync_kv_loads": [True],
    "aux_output_connector_metadata": [metadata()],
    "ec_connector_metadata": [metadata()],
    "ec_manager_metadata": [metadata()],
    "new_block_ids_to_zero": [[], [4, 2**31]],
    "kv_cache_block_copies": [[], [(1, 2)]],
    "block_table_updates": [{"a": ([1, 2], [])}],
    "kv_connector_block_state": [None],
    "num_spec_tokens_to_schedule": [3],
    "num_common_prefix_blocks": [[], [0, 2]],
    "skip_drafts": [True],
}

CACHED: dict[str, list[Any]] = {
    "req_ids": [["a", "b"], ["b", "a"]],
    "resumed_req_ids": [{"a"}, {"a", "b"}],
    "new_token_ids": [[[5], []], [[1, 2], [2**31]]],
    "all_token_ids": [{"a": [1, 2, 3]}, {"b": []}],
    "new_block_ids": [[None, None], [([7],), None], [([], [1, 2]), ([9], [])]],
    "num_computed_tokens": [[0, 2**33], [16, 17]],
    "num_output_tokens": [[-1, 0], [3, 2**20]],
}

NEW: dict[str, list[Any]] = {
    "req_id": ["a", "ü" * 300],
    "prompt_token_ids": [None, [], [1, 2**31]],
    "mm_features": [[metadata()]],
    "sampling_params": [None, SamplingParams(seed=3, stop=["x"])],
    "pooling_params": [PoolingParams(task="embed")],
    "block_ids": [([1, 2], []), ([],)],
    "num_computed_tokens": [16],
    "lora_request": [LoRARequest("adapter", 1, "/somewhere")],
    "prompt_embeds": [torch.arange(600.0).reshape(2, 300)],
    "prompt_is_token_ids": [[True, False]],
    "prefill_token_ids": [[5, 6]],
    "replay_start": [7],
}

OUTPUT: dict[str, list[Any]] = {
    "req_ids": [["b", "a"], ["a"]],
    "req_id_to_index": [{"a": 0, "b": 1}],
    "sampled_token_ids": [[], [[1, -1], []]],
    "logprobs": [
        LogprobsLists(np.ones((2, 3), np.int32), np.ones((2, 3), np.float32), np.arange(2), [0, 2])
    ],
    "prompt_logprobs_dict": [
        {"a": None, "b": LogprobsTensors(torch.arange(6), torch.ones(6), torch.arange(2))}
    ],
    "prompt_token_id_logprobs_dict": [{"a": torch.ones(3, 2)}],
    "pooler_output": [[torch.arange(400.0), None]],
    "kv_connector_output": [KVConnectorOutput({"a"}, invalid_block_ids={7})],
    "ec_connector_output": [metadata()],
    "num_nans_in_logits": [{}, {"a": 1}],
    "cudagraph_stats": [metadata()],
    "aux_output_connector_output": [{"a": metadata()}],
    "sampling_masks": [(np.arange(4), None)],
}


def new_request(**changed: Any) -> NewRequestData:
    made = NewRequestData("a", [1, 2], [], SamplingParams(), None, ([1],), 0, None)
    return replace(made, **changed)


def cached(**changed: Any) -> CachedRequestData:
    made = CachedRequestData(
        req_ids=["a", "b"],
        resumed_req_ids=set(),
        new_token_ids=[],
        all_token_ids={},
        new_block_ids=[None, None],
        num_computed_tokens=[1, 2],
        num_output_tokens=[1, 1],
    )
    return replace(made, **changed)


def step(**changed: Any) -> SchedulerOutput:
    made = SchedulerOutput.make_empty()
    made.scheduled_cached_reqs = cached()
    made.num_scheduled_tokens = {"a": 1, "b": 1}
    made.total_num_scheduled_tokens = 2
    return replace(made, **changed)


def output(**changed: Any) -> ModelRunnerOutput:
    return replace(ModelRunnerOutput(["a", "b"], {"a": 0, "b": 1}, [[1], [2]]), **changed)


def has(cls: type, name: str) -> bool:
    return name in {field.name for field in fields(cls)}


def cases(cls: type, table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{index}")
        for name, values in table.items()
        if has(cls, name)
        for index, value in enumerate(values)
    ]


def through(*sent: SchedulerOutput) -> list[SchedulerOutput]:
    encoder, decoder = DeltaEncoder(request_plan()), DeltaDecoder(request_plan())
    received = []
    for each in sent:
        message = encoder.encode(each)
        encoder.sent()
        joined = b"".join(map(bytes, message)) if isinstance(message, list) else bytes(message)
        received.append(decoder.decode(joined)[0])
    return received


def check(changed: SchedulerOutput) -> None:
    """First of all, after a step without it, once more, and before one without it."""
    for row in ([changed], [step(), changed, changed, step(), step()]):
        for sent, received in zip(row, through(*row), strict=True):
            assert_same(sent, received)


@pytest.mark.parametrize(("name", "value"), cases(SchedulerOutput, STEP))
def test_a_steps_field(name: str, value: Any) -> None:
    check(step(**{name: value}))


@pytest.mark.parametrize(("name", "value"), cases(CachedRequestData, CACHED))
def test_a_field_of_the_requests_that_ranks_hold(name: str, value: Any) -> None:
    check(step(scheduled_cached_reqs=cached(**{name: value})))


@pytest.mark.parametrize(("name", "value"), cases(NewRequestData, NEW))
def test_a_field_of_a_new_request(name: str, value: Any) -> None:
    check(step(scheduled_new_reqs=[new_request(**{name: value})]))


@pytest.mark.parametrize(("name", "value"), cases(ModelRunnerOutput, OUTPUT))
def test_an_outputs_field(name: str, value: Any) -> None:
    codec, sent = ReplyCodec(reply_plan()), output(**{name: value})
    base = (7, ["a", "b"], None)
    message, _ = codec.encode(sent, base)
    joined = b"".join(map(bytes, message)) if isinstance(message, list) else bytes(message)
    assert_same(sent, codec.decode(joined, base)[0])


def test_the_tables_know_every_field_of_this_vllm() -> None:
    for cls, table in (
        (SchedulerOutput, STEP),
        (CachedRequestData, CACHED),
        (NewRequestData, NEW),
        (ModelRunnerOutput, OUTPUT),
    ):
        assert {field.name for field in fields(cls)} <= set(table), cls
