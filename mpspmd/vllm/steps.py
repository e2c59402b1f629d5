"""Steps: the two calls of a step, `execute_model` and `sample_tokens`, and their one reply."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

from vllm.config import VllmConfig
from vllm.distributed.ec_transfer.ec_connector.utils import ECOutputAggregator
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput

from mpspmd.engine.call import Call
from mpspmd.engine.engine import Engine
from mpspmd.engine.future import StepFuture
from mpspmd.errors import ConfigError, StepTimeout
from mpspmd.vllm.causes import report
from mpspmd.vllm.salvage import Salvage
from mpspmd.wire import ALL

Aggregators: TypeAlias = list[KVOutputAggregator | ECOutputAggregator]


class Steps:
    """In EngineCore's thread.

    If `execute_model` can only answer "not sampled yet", its future is done at once, and the ranks send one
    reply for the whole step, which `sample_tokens` returns. If no grammar can come, the ranks sample
    without a second request. Otherwise the second request is in the ring before the forward pass ends.
    `sample_tokens` raises an exception of the forward pass.
    """

    def __init__(
        self,
        engine: Engine,
        vllm_config: VllmConfig,
        output_rank: int,
        timeout_s: float,
        *,
        answer_early: bool,
    ) -> None:
        """`timeout_s` is for each of the two calls; a reply for both may take twice as long."""
        self._calls = engine.steps
        self._output_rank = output_rank
        self._timeout_s = timeout_s
        self._answers_early = answer_early and _samples(vllm_config)
        # A user's own scheduler may have grammars and not set vLLM's flag.
        self._flag_tells = vllm_config.scheduler_config.scheduler_cls is None
        self._begun: Call | None = None
        self._whole: Call | AggregatedFuture | None = None
        """The step that has no second request."""
        self._epoch = 0
        self._to_aggregate: deque[AggregatedFuture] = deque()
        # Without fault tolerance no step follows a failed one.
        goes_on = vllm_config.parallel_config.enable_fault_tolerance
        self._salvage = Salvage() if goes_on else None

    def execute(
        self, scheduler_output: SchedulerOutput, non_block: bool, aggregators: Aggregators
    ) -> Any:
        if self._begun is not None:
            # Nobody has called sample_tokens() for it, because the engine has failed in between.
            self._calls.forget(self._begun)
        self._begun = self._whole = None
        early = (
            self._answers_early and non_block and scheduler_output.total_num_scheduled_tokens > 0
        )
        if not early:
            return self._call("execute_model", (scheduler_output,), non_block, aggregators)
        if self._flag_tells and not scheduler_output.has_structured_output_requests:
            step = (scheduler_output, self._epoch, 1)
            if aggregators:
                self._whole = self._call("execute_model", step, True, aggregators, is_step=True)
            else:
                self._whole = self._calls.send(
                    "execute_model",
                    step,
                    reply_ranks=self._output_rank,
                    timeout=2 * self._timeout_s,
                )
            return _NOT_SAMPLED_YET
        self._begun = self._calls.send(
            "execute_model",
            (scheduler_output, self._epoch),
            reply_ranks=ALL if aggregators else self._output_rank,
        )
        return _NOT_SAMPLED_YET

    def sample(
        self, grammar_output: GrammarOutput | None, non_block: bool, aggregators: Aggregators
    ) -> Any:
        begun, self._begun = self._begun, None
        whole, self._whole = self._whole, None
        if whole is not None:
            if grammar_output is not None:
                raise ConfigError(
                    "a grammar came for a step whose has_structured_output_requests is False, and which is "
                    "being sampled without one; set MPSPMD_ANSWER_EARLY=0 for such a scheduler"
                )
            return self._outcome_of(whole, non_block)
        if begun is None:
            return self._call("sample_tokens", (grammar_output,), non_block, aggregators)
        try:
            return self._call(
                "sample_step", (grammar_output,), non_block, aggregators, is_step=True, ends=begun
            )
        except Exception:
            self._calls.forget(begun)
            self._forgive()
            raise

    def take_draft_token_ids(self) -> Any:
        """May be called between a step's two requests. Then it raises if the first one has failed."""
        return self._calls.call(
            "take_draft_token_ids",
            reply_ranks=self._output_rank,
            timeout=self._timeout_s,
            within=self._begun,
        )

    def aggregated(
        self, outputs: StepFuture[Any], aggregators: Aggregators, rank: int, non_block: bool
    ) -> Any:
        """The output of `rank`, merged with those of all ranks, or a future of it. Merged in call order."""
        future = AggregatedFuture(outputs, aggregators, rank, self._to_aggregate, self._salvage)
        return future if non_block else future.result()

    def _outcome_of(self, whole: Call | AggregatedFuture, non_block: bool) -> Any:
        if isinstance(whole, AggregatedFuture):
            return whole if non_block else whole.result()
        if non_block:
            future = self._calls.future(whole)
            future.on_raise = self._forgive
            return future
        try:
            return self._calls.outcome(whole)
        except Exception:
            self._forgive()
            raise

    def _call(
        self,
        method: str,
        args: tuple[Any, ...],
        non_block: bool,
        aggregators: Aggregators,
        *,
        is_step: bool = False,
        ends: Call | None = None,
    ) -> Any:
        """`is_step`: the reply stands for both calls of a step."""
        # With aggregators all ranks reply: each tells what it has transferred itself.
        outcome = self._calls.call(
            method,
            args,
            reply_ranks=ALL if aggregators else self._output_rank,
            timeout=2 * self._timeout_s if is_step else self._timeout_s,
            non_block=non_block or bool(aggregators),
            ends=ends,
            keeps_late=bool(aggregators) and self._salvage is not None,
        )
        if aggregators:
            outcome = self.aggregated(outcome, aggregators, self._output_rank, non_block)
        if non_block:
            outcome.on_raise = self._forgive if is_step else self._report_timeout
        return outcome

    def _report_timeout(self) -> None:
        """Call it while an exception is raised that ends EngineCore: vLLM's error for its caller lacks the
        cause. Causes other than a timeout end the run, and the executor reports them."""
        if self._salvage is None and isinstance(error := sys.exception(), StepTimeout):
            report(error)

    def _forgive(self) -> None:
        """The caller knows of a failure: steps that it sends from now on don't rely on the failed one."""
        self._report_timeout()
        self._epoch += 1
        self._calls.send_anew()


class AggregatedFuture(Future[Any]):
    """The outputs of all ranks, merged once into the output rank's.

    Aggregators count across steps. So steps are merged in their order, whichever result is asked for first.
    """

    def __init__(
        self,
        outputs: StepFuture[Any],
        aggregators: Aggregators,
        output_rank: int,
        order: deque[AggregatedFuture],
        salvage: Salvage | None,
    ) -> None:
        super().__init__()
        self._salvage = salvage
        self._outputs = outputs
        self._aggregators = aggregators
        self._output_rank = output_rank
        self._order = order
        self.on_raise: Callable[[], None] | None = None
        """As StepFuture's."""
        order.append(self)

    def result(self, timeout: float | None = None) -> Any:
        while not super().done():
            self._order[0]._merge(timeout)
        try:
            return super().result(0)
        except Exception:
            if self.on_raise is not None:
                self.on_raise()
            raise

    def _merge(self, timeout: float | None) -> None:
        try:
            outputs = self._outputs.result(timeout)
            merged = outputs[self._output_rank]
            if self._salvage is not None:
                self._salvage.hand_over(self._aggregators)
            for aggregator in self._aggregators:
                merged = aggregator.aggregate(outputs, output_rank=self._output_rank)
        except Exception as error:
            if not self._outputs.done():
                raise  # `timeout` has passed: the step goes on
            if self._salvage is not None:
                self._salvage.add(self._outputs)
            self._order.popleft()
            self.set_exception(error)
            return
        self._order.popleft()
        self.set_result(merged)


def _samples(vllm_config: VllmConfig) -> bool:
    """Whether this engine's steps end with `sample_tokens`, and not with `execute_model`."""
    connector = vllm_config.ec_transfer_config
    encodes_only = (
        connector is not None and connector.is_ec_producer and not connector.is_ec_consumer
    )
    pools = vllm_config.model_config.runner_type == "pooling"
    return not (pools or encodes_only or vllm_config.is_mm_encoder_only)


class _NotSampledYet(Future[None]):
    """Always done. It needs no lock, as other futures do."""

    def result(self, timeout: float | None = None) -> None:
        return None


_NOT_SAMPLED_YET = _NotSampledYet()
_NOT_SAMPLED_YET.set_result(None)
