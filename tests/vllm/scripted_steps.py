"""An executor whose workers do as they are told (scripted_worker.py), and the steps that tell them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any


def start(
    model: Path,
    *,
    asynchronous: bool,
    change: Callable[[Any], None] = lambda config: None,
    executor_class: Any = None,
) -> Any:
    """`change` may change vLLM's configuration. `executor_class` is a class derived from ours."""
    from vllm.engine.arg_utils import EngineArgs

    from mpspmd.vllm.executor import MpSpmdExecutor

    config = EngineArgs(
        str(model),
        tensor_parallel_size=2,
        distributed_executor_backend=executor_class or "mp-spmd",
        max_model_len=512,
    ).create_engine_config()
    config.parallel_config.worker_cls = "scripted_worker.ScriptedWorker"
    # Otherwise the first failed step ends the run.
    config.parallel_config.enable_fault_tolerance = True
    # vLLM's own check would turn it off on a CPU.
    config.scheduler_config.async_scheduling = asynchronous
    change(config)
    return (executor_class or MpSpmdExecutor)(config)


def step(name: str, *instructions: str, tokens: int = 1, may_have_grammar: bool = False) -> Any:
    from vllm.v1.core.sched.output import SchedulerOutput

    made = SchedulerOutput.make_empty()
    made.num_scheduled_tokens = {name: tokens}
    made.total_num_scheduled_tokens = tokens
    made.free_encoder_mm_hashes = list(instructions)
    made.has_structured_output_requests = may_have_grammar
    return made


def run(executor: Any, scheduler_output: Any, grammar_output: Any = None) -> Any:
    """In the order of EngineCore.step."""
    output = executor.execute_model(scheduler_output, non_block=True).result()
    return executor.sample_tokens(grammar_output) if output is None else output


def submit(executor: Any, scheduler_output: Any) -> tuple[Future[Any], Future[Any]]:
    """In the order of EngineCore.step_with_batch_queue: (execute's future, sample's)."""
    return (
        executor.execute_model(scheduler_output, non_block=True),
        executor.sample_tokens(None, non_block=True),
    )
