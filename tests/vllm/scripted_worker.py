"""ScriptedWorker: a vLLM worker without a model, which does what a step's instructions say.

The instructions travel in `free_encoder_mm_hashes`, a list of strings that nothing else looks at:

    "raise N"       the forward pass raises on rank N
    "sampling N"    the sampling raises on rank N
    "answer"        the forward pass returns an output, as where nothing is to be sampled
    "wait PATH"     the forward pass ends when the file is there; "wait PATH N": only on rank N
    "linger PATH N" the same for the sampling
    "lose N"        rank N's output can't be had when it is asked for (asynchronous scheduling)
    "lose N oddly"  the same with an exception that can't be pickled
    "die WHERE N"   rank N is killed in its "forward" pass, its "sampling" or while its "output" is finished
    "sent ID"       the output says that this rank has sent the request's blocks; "sent ID N": only rank N's

`{"fail": {PHASE: RANK}, "folder": FOLDER}` in the additional configuration says which rank raises while
it is made. If there are several, each waits in the folder until all have come so far.
`{"die": {PHASE: RANK}}` says which rank is killed then.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from vllm.v1.outputs import (
    AsyncModelRunnerOutput,
    DraftTokenIds,
    KVConnectorOutput,
    ModelRunnerOutput,
)
from vllm.v1.worker.worker_base import WorkerBase


class ScriptedWorker(WorkerBase):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.events: list[str] = []
        self._step: Any = None
        self._fail("constructor")

    def init_device(self) -> None: ...

    def load_model(self) -> None:
        self._fail("load")

    def compile_or_warm_up_model(self) -> None:
        self._fail("warm-up")

    def _fail(self, phase: str) -> None:
        told = self.vllm_config.additional_config
        if told.get("die", {}).get(phase) == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        failing = told.get("fail", {})
        if failing.get(phase) == self.rank:
            folder = Path(told["folder"])
            (folder / str(self.rank)).touch()
            while not all((folder / str(rank)).exists() for rank in failing.values()):
                time.sleep(0.01)
            raise ValueError(f"the {phase} of rank {self.rank}")

    def take_events(self) -> list[str]:
        events, self.events = self.events, []
        return events

    def execute_model(self, scheduler_output: Any) -> Any:
        name = "+".join(scheduler_output.num_scheduled_tokens)
        self.events.append(f"execute {name}")
        self.die(scheduler_output, "forward")
        for instruction in scheduler_output.free_encoder_mm_hashes:
            what, *arguments = instruction.split()
            if what == "raise" and int(arguments[0]) == self.rank:
                raise ValueError(f"the forward pass of {name}")
            if what == "wait":
                self._wait_for(*arguments)
            if what == "answer":
                return self._output(scheduler_output, "execute")
        self.events.append(f"executed {name}")
        self._step = scheduler_output
        return (
            None
            if scheduler_output.total_num_scheduled_tokens
            else self._output(scheduler_output, "")
        )

    def sample_tokens(self, grammar_output: Any) -> Any:
        step, self._step = self._step, None
        name = "+".join(step.num_scheduled_tokens)
        self.events.append(f"sample {name}")
        self.die(step, "sampling")
        if f"sampling {self.rank}" in step.free_encoder_mm_hashes:
            raise ValueError(f"the sampling of {name}")
        for instruction in step.free_encoder_mm_hashes:
            if instruction.startswith("linger"):
                self._wait_for(*instruction.split()[1:])
        bitmask = None if grammar_output is None else grammar_output.grammar_bitmask.tolist()
        return self._output(step, bitmask)

    def die(self, step: Any, where: str) -> None:
        if f"die {where} {self.rank}" in step.free_encoder_mm_hashes:
            os.kill(os.getpid(), signal.SIGKILL)

    def _wait_for(self, path: str, rank: str = "") -> None:
        while rank in ("", str(self.rank)) and not os.path.exists(path):
            time.sleep(0.001)

    def take_draft_token_ids(self) -> DraftTokenIds:
        self.events.append("drafts")
        return DraftTokenIds(["a"], [[self.rank]])

    def execute_dummy_batch(self) -> None:
        self.events.append("dummy")

    def check_health(self) -> None: ...

    def profile(
        self,
        is_start: bool = True,
        profile_prefix: str | None = None,
        profiler_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.events.append(f"profile {is_start} {profile_prefix} {profiler_kwargs}")

    def get_simple_cpu_offload_num_cpu_blocks(self) -> int:
        return 10 + self.rank

    def kv_cache_layout(self) -> list[Any]:
        parallel = self.vllm_config.parallel_config
        return [self.vllm_config.cache_config.kv_cache_layout, parallel.cp_kv_cache_interleave_size]

    def _output(self, step: Any, note: Any) -> Any:
        ids = list(step.num_scheduled_tokens)
        output = ModelRunnerOutput(
            ids,
            {each: index for index, each in enumerate(ids)},
            [[self.rank, count] for count in step.num_scheduled_tokens.values()],
            prompt_logprobs_dict={"note": note},
        )
        sent = [each.split()[1:] for each in step.free_encoder_mm_hashes if each.startswith("sent")]
        mine = {name for name, *rank in sent if rank in ([], [str(self.rank)])}
        output.kv_connector_output = KVConnectorOutput(finished_sending=mine) if sent else None
        if self.vllm_config.scheduler_config.async_scheduling:
            lost = [each.split()[1:] for each in step.free_encoder_mm_hashes if "lose" in each]
            return Pending(
                self, step, output, [how for rank, *how in lost if int(rank) == self.rank]
            )
        return output


class Pending(AsyncModelRunnerOutput):
    """An output that is still on its way from the device."""

    def __init__(
        self, worker: ScriptedWorker, step: Any, output: ModelRunnerOutput, lost: list[list[str]]
    ) -> None:
        self._worker = worker
        self._step = step
        self._output = output
        self._lost = lost

    def get_output(self) -> ModelRunnerOutput:
        thread = threading.current_thread().name
        self._worker.events.append(f"get_output {thread}")
        self._worker.die(self._step, "output")
        time.sleep(0.01)
        if self._lost:
            raise Odd(threading.Lock()) if self._lost[0] else ValueError("lost on the device")
        return self._output

    def get_kv_connector_output(self) -> KVConnectorOutput | None:
        """Of vLLM 0.33."""
        return self._output.kv_connector_output


class Odd(Exception):
    """It can't be pickled."""
