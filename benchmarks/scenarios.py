"""Scenarios: what a scheduler sends, step by step, for a batch of requests; and what it keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from vllm import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

BLOCK_TOKENS = 16
PROMPT_TOKENS = 128
_ODD = 0x9E3779B97F4A7C15  # a multiplier that spreads numbers over all bits
_KEPT_STEPS = 16  # fewer than the warm-up has, so that the counted steps reuse memory
_CHURN = 20  # in each step one request in so many ends, and another takes its place


class _Request:
    def __init__(self, number: int) -> None:
        # Like the API server's ids: 64 random bits, and a random suffix.
        self.id = f"chatcmpl-{number * _ODD % (1 << 64):016x}-{number * _ODD % (1 << 32):08x}"
        self.blocks = list(range(number * 8, number * 8 + PROMPT_TOKENS // BLOCK_TOKENS))
        # Spread, so that in each step one request in BLOCK_TOKENS gets a block.
        self.computed = PROMPT_TOKENS + number % BLOCK_TOKENS
        self.output = 1

    def as_new(self) -> NewRequestData:
        prompt = [(self.blocks[0] + token) * 7919 % 32000 for token in range(PROMPT_TOKENS)]
        return NewRequestData(
            req_id=self.id,
            prompt_token_ids=prompt,
            mm_features=[],
            sampling_params=SamplingParams(temperature=0.0, max_tokens=1024),
            pooling_params=None,
            block_ids=(list(self.blocks),),
            num_computed_tokens=0,
            lora_request=None,
        )

    def new_block(self) -> tuple[list[int], ...] | None:
        """The new block of a step in which the last one is full, else None."""
        if self.computed % BLOCK_TOKENS:
            return None
        self.blocks.append(self.blocks[-1] + 1)
        return ([self.blocks[-1]],)


class Scenario:
    """A scheduler's outputs, each of which continues the one before."""

    def __init__(self, batch: int, replaced: int) -> None:
        """`replaced` requests end before each step but the first, and as many new ones come."""
        self._batch = batch
        self._replaced = replaced
        self._running: deque[_Request] = deque()
        self._made = 0

    def next(self) -> SchedulerOutput:
        """The next step's output. The first has the prompts of the whole batch."""
        leave = self._replaced if self._running else 0
        finished = {self._running.popleft().id for _ in range(leave)}
        cached = list(self._running)
        new = [self._new() for _ in range(self._batch - len(cached))]
        self._running.extend(new)
        tokens = dict.fromkeys((each.id for each in cached), 1)
        tokens |= dict.fromkeys((each.id for each in new), PROMPT_TOKENS)
        output = SchedulerOutput.make_empty()
        output.scheduled_new_reqs = [each.as_new() for each in new]
        output.scheduled_cached_reqs = CachedRequestData(
            req_ids=[each.id for each in cached],
            resumed_req_ids=set(),
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=[each.new_block() for each in cached],
            num_computed_tokens=[each.computed for each in cached],
            num_output_tokens=[each.output for each in cached],
        )
        output.num_scheduled_tokens = tokens
        output.total_num_scheduled_tokens = sum(tokens.values())
        output.finished_req_ids = finished
        output.preempted_req_ids = set()
        for each in cached:
            each.computed += 1
            each.output += 1
        return output

    def end(self) -> SchedulerOutput:
        """A last step: it has one new request, and tells the ranks that all others have finished."""
        finished = {each.id for each in self._running}
        self._running.clear()
        self._batch = 1
        output = self.next()
        output.finished_req_ids = finished
        return output

    def _new(self) -> _Request:
        self._made += 1
        return _Request(self._made)


class Tokens:
    """What a scheduler keeps of its replies: tokens, until their request ends; here, for some steps.

    So the ints outlive their reply, and those of the next reply are made in other memory.
    """

    def __init__(self) -> None:
        self._steps: deque[list[int]] = deque(maxlen=_KEPT_STEPS)

    def keep(self, output: ModelRunnerOutput) -> None:
        self._steps.append([token for tokens in output.sampled_token_ids for token in tokens])


def steady(batch: int) -> Scenario:
    """One token a request; one request in 16 gets a block."""
    return Scenario(batch, 0)


def churn(batch: int) -> Scenario:
    """Like steady, but in each step 5 % of the requests, at least one, end and others come."""
    return Scenario(batch, max(1, batch // _CHURN))


def prefill(batch: int) -> Scenario:
    """New requests only, with 128 tokens each."""
    return Scenario(batch, batch)


Make: TypeAlias = Callable[[int], Scenario]
SCENARIOS: dict[str, Make] = {"steady": steady, "churn": churn, "prefill": prefill}
