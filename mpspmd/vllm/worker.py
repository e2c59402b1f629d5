"""RankWorker: vLLM's worker wrapper as the worker of an mpspmd rank."""

from __future__ import annotations

from typing import Any

from vllm import envs
from vllm.config import VllmConfig
from vllm.distributed import destroy_distributed_environment, destroy_model_parallel
from vllm.envs import enable_envs_cache
from vllm.logger import configure_logging
from vllm.platforms import current_platform
from vllm.tracing import maybe_init_worker_tracer
from vllm.utils import numa_utils
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.executor.multiproc_executor import WorkerProc
from vllm.v1.executor.vllm_net_devices import set_worker_net_device
from vllm.v1.outputs import AsyncModelRunnerOutput
from vllm.v1.worker.worker_base import WorkerWrapperBase

from mpspmd.rank.worker import RankContext
from mpspmd.vllm.collectives import watch_collectives
from mpspmd.vllm.compat import doing_without, track_files
from mpspmd.vllm.leftovers import remove, sweep
from mpspmd.vllm.lock import RankLock
from mpspmd.vllm.salvage import carrying
from mpspmd.vllm.step_slot import StepSlot
from mpspmd.vllm.watchdog import Watchdog, start_watchdog


class RankWorker(WorkerWrapperBase):
    """What every rank runs. It starts a worker in the same order as vLLM's `mp`.

    It is a subclass of vLLM's wrapper, because functions passed to `collective_rpc` expect a wrapper.
    Methods run in the rank's main thread, unless they say otherwise.
    """

    def __init__(
        self,
        ctx: RankContext,
        vllm_config: VllmConfig,
        distributed_init_method: str,
        lock: str,
    ) -> None:
        self._init_method = distributed_init_method
        self._slot = StepSlot()
        self.reply_thread = bool(vllm_config.scheduler_config.async_scheduling)
        self._shared_memory = track_files(ctx.remove_at_end)
        _prepare_process(vllm_config, ctx.rank, ctx.local_rank)
        super().__init__(rpc_rank=ctx.local_rank, global_rank=ctx.rank)
        self.ctx = ctx
        # The wrapper takes the arguments of all ranks, and picks its own.
        all_kwargs: list[dict[str, Any]] = [{} for _ in range(ctx.world_size)]
        all_kwargs[ctx.local_rank] = {
            "vllm_config": vllm_config,
            "local_rank": ctx.local_rank,
            "rank": ctx.rank,
            "distributed_init_method": distributed_init_method,
            "is_driver_worker": ctx.rank % vllm_config.parallel_config.tensor_parallel_size == 0,
            "shared_worker_lock": RankLock(lock),
        }
        try:
            self._make_worker(all_kwargs, vllm_config.parallel_config.enable_expert_parallel)
        except BaseException:
            # The rank calls shutdown() only if this constructor returns.
            self._sweep()
            raise
        current_platform.update_block_size_for_backend(vllm_config)
        # From now on nothing changes an environment variable that vLLM reads.
        enable_envs_cache()
        if vllm_config.parallel_config.numa_bind:
            numa_utils.log_current_affinity_state(f"Worker_{ctx.rank}")
        self._watch(start_watchdog(vllm_config, ctx.rank))

    def _watch(self, watchdog: Watchdog | None) -> None:
        self.while_waiting = None if watchdog is None else watchdog.waiting
        self._watchdog = watchdog
        if watchdog is None or self.reply_thread:
            return
        finish = self.finish_reply

        def finish_and_feed(result: Any) -> Any:
            # The call may have used up nearly all of the watchdog's time, and sending takes more.
            watchdog.feed()
            return finish(result)

        self.finish_reply = finish_and_feed  # type: ignore[method-assign]

    def _make_worker(self, all_kwargs: list[dict[str, Any]], expert_parallel: bool) -> None:
        # It names the process and its log lines after the rank's place in each parallel group.
        set_title = WorkerProc.setup_proc_title_and_log_prefix
        self.init_worker(all_kwargs)
        set_title(expert_parallel)
        with doing_without("its collectives won't be timed, nor named in reports"):
            self._watched = watch_collectives(self.ctx.collective())
        self.init_device()
        set_title(expert_parallel)
        if envs.VLLM_ELASTIC_EP_SCALE_UP_LAUNCH:
            self.worker.elastic_ep_execute("load_model")
        else:
            self.worker.load_model()

    def execute_model(
        self, scheduler_output: SchedulerOutput, epoch: int | None = None, samples: int = 0
    ) -> Any:
        """Without an epoch it is vLLM's own call. With an epoch it is the first call of a step that has one
        reply, that of `sample_step`. If `samples` is 1, this call samples as well, and is the only one.

        `samples` is an int because the delta codec sends ints beside a delta, but no bools.
        """
        if epoch is None:
            return super().execute_model(scheduler_output)
        later = self._slot.execute(super().execute_model, scheduler_output, epoch)
        return self._slot.sample(self.worker.sample_tokens, None) if samples else later

    def sample_step(self, grammar_output: GrammarOutput | None) -> Any:
        """The second call of such a step. Returns its output."""
        return self._slot.sample(self.worker.sample_tokens, grammar_output)

    def start_reply_thread(self) -> None:
        """In the reply thread: sets its device. Otherwise the thread would make a context on device 0."""
        device = getattr(self.worker, "device", None)
        if device is not None:
            current_platform.set_device(device)

    def finish_reply(self, result: Any) -> Any:
        """In the thread that sends the reply: waits for an output that the device still computes."""
        if not isinstance(result, AsyncModelRunnerOutput):
            return result
        try:
            return result.get_output()
        except Exception as error:
            carrier = carrying(error, result)
            if carrier is error:
                raise
            raise carrier from error

    def told_to_leave(self) -> None:
        """In the control thread: the main thread may be stuck, and the watchdog writes where."""
        if self._watchdog is not None:
            self._watchdog.run_ends()

    def shutdown(self) -> None:
        # If the engine has died, the watchdog's thread may be writing stacks: this waits for it.
        self.told_to_leave()
        super().shutdown()
        destroy_model_parallel()
        destroy_distributed_environment()
        self._sweep()

    def _sweep(self) -> None:
        # vLLM's broadcaster removes its shared memory when it is collected, but a rank exits before that.
        remove(self._shared_memory)
        sweep(self._init_method)


def _prepare_process(vllm_config: VllmConfig, rank: int, local_rank: int) -> None:
    """Sets what vLLM's worker needs before it is made: logging, devices, network, tracing."""
    if logging_config := getattr(vllm_config, "logging_config", None):
        configure_logging(logging_config)
    assigned = vllm_config.parallel_config.assigned_physical_gpu_ids
    if assigned is not None:
        from vllm.platforms.interface import set_assigned_physical_gpu_ids

        set_assigned_physical_gpu_ids(assigned)
    set_worker_net_device(local_rank, vllm_config)
    maybe_init_worker_tracer(
        instrumenting_module_name="vllm.worker",
        process_kind="worker",
        process_name=f"Worker_{rank}",
    )
