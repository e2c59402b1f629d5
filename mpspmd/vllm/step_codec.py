"""vLLM's steps as deltas: which fields change often, and how each is sent. Others are sent whole."""

from __future__ import annotations

from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from mpspmd._delta import Plan
from mpspmd.codec.delta import Kind, plan
from mpspmd.codec.steps import StepCodec
from mpspmd.vllm.compat import needs_its_constructor

CACHED_REQUESTS: dict[str, Any] = {
    "req_ids": Kind.KEYS,
    "resumed_req_ids": Kind.KEYSET,
    "new_token_ids": Kind.LISTS,
    "all_token_ids": Kind.TAILS,
    "new_block_ids": Kind.GROUPS,
    "num_computed_tokens": Kind.PROGRESS,
    "num_output_tokens": Kind.TREND,
}

NEW_REQUEST: dict[str, Any] = {
    "req_id": Kind.KEY,
    "block_ids": Kind.GROUP,
}

STEP: dict[str, Any] = {
    "num_scheduled_tokens": Kind.COUNTS,
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
    """Sends a `SchedulerOutput` to every rank, and a `ModelRunnerOutput` back."""
    return StepCodec(SchedulerOutput, request_plan, ModelRunnerOutput, reply_plan)


def request_plan(step: type = SchedulerOutput) -> Plan:
    new_request = plan(NewRequestData, NEW_REQUEST | {"sampling_params": _sampling_params()})
    records = {
        "scheduled_new_reqs": [new_request],
        "scheduled_cached_reqs": plan(CachedRequestData, CACHED_REQUESTS),
    }
    return plan(step, STEP | records)


def _sampling_params() -> Plan | Kind:
    """Without a plan they are pickled. Unpickling calls their constructor, which checks all values again,
    and takes longer than the rest of a step."""
    if needs_its_constructor(SamplingParams):
        return Kind.PLAIN
    return plan(SamplingParams, {"output_kind": RequestOutputKind})


def reply_plan(output: type = ModelRunnerOutput) -> Plan:
    return plan(output, OUTPUT)
