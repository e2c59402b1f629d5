"""vLLM's steps as deltas: which fields are hot, and how each of them goes. All others go as they are."""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from mpspmd._native import Plan
from mpspmd.codec.delta import Kind, plan
from mpspmd.codec.steps import StepCodec

CACHED_REQUESTS: dict[str, Any] = {
    "req_ids": Kind.KEYS,
    "resumed_req_ids": Kind.KEYSET,
    "new_token_ids": Kind.LISTS,
    "all_token_ids": Kind.TAILS,
    "new_block_ids": Kind.GROUPS,
    "num_computed_tokens": Kind.PROGRESS,
    "num_output_tokens": Kind.TREND,
}

STEP: dict[str, Any] = {
    "num_scheduled_tokens": Kind.COUNTS,
    "total_num_scheduled_tokens": Kind.SUM,
    "scheduled_spec_decode_tokens": Kind.TOKENS,
    "finished_req_ids": Kind.FINISHED,
    "preempted_req_ids": Kind.KEYSET,
}

OUTPUT: dict[str, Any] = {
    "req_ids": Kind.ORDER,
    "req_id_to_index": Kind.INDEX,
    "sampled_token_ids": Kind.LISTS,
}


def step_codec() -> StepCodec:
    """`SchedulerOutput` to every rank, `ModelRunnerOutput` back."""
    return StepCodec(SchedulerOutput, request_plan, ModelRunnerOutput, reply_plan)


def request_plan(step: type = SchedulerOutput) -> Plan:
    new_request = plan(NewRequestData, {"block_ids": Kind.GROUP})
    records = {
        "scheduled_new_reqs": [new_request],
        "scheduled_cached_reqs": plan(CachedRequestData, CACHED_REQUESTS),
    }
    return plan(step, STEP | records)


def reply_plan(output: type = ModelRunnerOutput) -> Plan:
    return plan(output, OUTPUT)
