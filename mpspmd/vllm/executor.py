"""MpSpmdExecutor: vLLM's executor interface on mpspmd's engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import util as multiprocessing_util
from typing import Any

from vllm import envs, version
from vllm.distributed.ec_transfer.ec_connector.utils import ECOutputAggregator
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.logger import init_logger
from vllm.utils.torch_utils import set_torch_threads_for_runtime
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

from mpspmd.engine.engine import Engine
from mpspmd.errors import RankDied
from mpspmd.vllm.causes import report
from mpspmd.vllm.compat import untested
from mpspmd.vllm.node_start import NodeStart
from mpspmd.vllm.plugin import register
from mpspmd.vllm.process_end import (
    await_own_kill,
    exit_quickly_when_done,
    exit_with_parent,
    exiting_at_signals,
)
from mpspmd.vllm.step_codec import step_codec
from mpspmd.vllm.steps import Aggregators, Steps
from mpspmd.wire import ALL

logger = init_logger(__name__)

_STEP_METHODS = {
    "execute_model",
    "sample_tokens",
    "sample_step",
    "execute_dummy_batch",
    "take_draft_token_ids",
}
_START_METHODS = {
    "determine_available_memory",
    "get_kv_cache_spec",
    "initialize_from_config",
    "set_kv_cache_layout",
    "compile_or_warm_up_model",
}
"""If one of these fails on some ranks, the ranks' states differ, and the run ends."""


_NO_AGGREGATORS: Aggregators = []


class MpSpmdExecutor(Executor):
    """All workers are ranks of an `mpspmd.Engine`; this process holds none of them.

    In a derived class `collective_rpc` sees all calls but those of steps (`execute_model`, `sample_tokens`,
    `execute_dummy_batch`, `take_draft_token_ids`), which are methods of their own.
    """

    supports_pp: bool = True

    runs_on_mpspmd: bool = True
    """By this compat.py knows the class, and those derived from it, without importing this module."""

    def _init_executor(self) -> None:
        try:
            self._start()
        except BaseException as error:
            report(error)
            raise

    def _start(self) -> None:
        parallel = self.parallel_config
        start = NodeStart.prepare(self.vllm_config)
        # `mp` has these attributes, and derived classes may use them.
        self.world_size = parallel.world_size
        self.local_world_size = parallel.local_world_size
        # The first tensor-parallel rank of the last pipeline stage has the output.
        self.output_rank = parallel.world_size - (
            parallel.tensor_parallel_size * parallel.prefill_context_parallel_size
        )
        self._node = start
        self._has_stepped = False
        if (warning := untested(version.__version__)) is not None:
            logger.warning(warning)
        exit_with_parent()
        with exiting_at_signals():
            self._engine = self._start_engine(start)
        self._steps = Steps(
            self._engine,
            self.vllm_config,
            self.output_rank,
            envs.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS,
            answer_early=start.settings.answer_early,
        )
        # At exit, if nobody has called shutdown() by then.
        multiprocessing_util.Finalize(None, self.shutdown, exitpriority=90)
        # From now on this process only schedules.
        set_torch_threads_for_runtime()

    def _start_engine(self, start: NodeStart) -> Engine:
        # With fault tolerance vLLM resets the ranks itself after a failed step, and goes on.
        goes_on = self.parallel_config.enable_fault_tolerance
        fatal = _START_METHODS if goes_on else _START_METHODS | _STEP_METHODS
        try:
            return Engine(
                world_size=self.world_size,
                fatal_methods=fatal,
                on_cause=_tell_cause,
                step_codec=step_codec(),
                nodes=start.place,
                **start.arguments,
            )
        except BaseException:
            start.sweep()
            raise
        finally:
            start.remove_lock()

    @property
    def is_failed(self) -> bool:
        return self._engine.failure is not None

    def register_failure_callback(self, callback: Callable[[], None]) -> None:
        self._engine.on_failure(lambda cause: callback())

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
        unique_reply_rank: int | None = None,
        kv_output_aggregator: KVOutputAggregator | None = None,
        ec_output_aggregator: ECOutputAggregator | None = None,
    ) -> Any:
        """Calls a worker's method, or a function of the worker's wrapper, on every rank. As `mp`'s.

        Returns all replies in the order of ranks, or the reply of `unique_reply_rank`. With an aggregator
        it returns that rank's reply, or rank 0's, merged with what the aggregator takes from all replies.
        With `non_block` it returns a future of that. `timeout` is in seconds; None: no limit.

        Any thread may call it; with an aggregator only EngineCore's.

        Raises:
            RankError: the method has raised on a rank.
            StepTimeout: a rank hasn't replied in time.
            RankDied: a rank's process has ended.
        """
        aggregators = _aggregators(kv_output_aggregator, ec_output_aggregator)
        # Before the first step, EngineCore may still be in its constructor.
        with contextlib.nullcontext() if self._has_stepped else exiting_at_signals():
            if aggregators:
                rank = unique_reply_rank or 0
                outputs = self._engine.call(method, args, kwargs, timeout=timeout, non_block=True)
                return self._steps.aggregated(outputs, aggregators, rank, non_block)
            return self._engine.call(
                method,
                args,
                kwargs,
                reply_ranks=ALL if unique_reply_rank is None else unique_reply_rank,
                timeout=timeout,
                non_block=non_block,
            )

    def execute_model(
        self, scheduler_output: SchedulerOutput, non_block: bool = False
    ) -> ModelRunnerOutput | None | Future[ModelRunnerOutput | None]:
        self._has_stepped = True
        aggregators = _aggregators(self.kv_output_aggregator, self.ec_output_aggregator)
        return self._steps.execute(scheduler_output, non_block, aggregators)

    def sample_tokens(
        self, grammar_output: GrammarOutput | None, non_block: bool = False
    ) -> ModelRunnerOutput | Future[ModelRunnerOutput]:
        aggregators = _aggregators(self.kv_output_aggregator, self.ec_output_aggregator)
        return self._steps.sample(grammar_output, non_block, aggregators)

    def execute_dummy_batch(self) -> None:
        self._engine.call(
            "execute_dummy_batch",
            reply_ranks=self.output_rank,
            timeout=envs.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS,
        )

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        return self._steps.take_draft_token_ids()

    def check_health(self) -> None:
        self.collective_rpc("check_health", timeout=10)

    def shutdown(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.note_exception(sys.exception())  # vLLM calls this while an exception ends it
            engine.shutdown()
            self._node.sweep()
            exit_quickly_when_done()

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        return True


# Whoever passes the class itself needs no entry point: VLLM_PLUGINS may leave out ours.
register()


def _aggregators(kv: KVOutputAggregator | None, ec: ECOutputAggregator | None) -> Aggregators:
    if kv is None and ec is None:
        return _NO_AGGREGATORS
    return [each for each in (kv, ec) if each is not None]


def _tell_cause(error: BaseException) -> None:
    if isinstance(error, RankDied):
        await_own_kill()
    report(error)
