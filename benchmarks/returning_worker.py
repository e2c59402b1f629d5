"""ReturningWorker: a vLLM worker that computes nothing, and returns a plausible output at once."""

from __future__ import annotations

import random
from typing import Any

from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.worker_base import WorkerBase

from benchmarks.parent import die_with_parent

_VARIANTS = 8
_VOCABULARY = 32000


class ReturningWorker(WorkerBase):  # type: ignore[misc]
    """Both backends run it on every rank. It makes a batch's outputs when the batch changes."""

    def __init__(self, **kwargs: Any) -> None:
        die_with_parent()
        super().__init__(**kwargs)
        self._outputs: list[ModelRunnerOutput] = []
        self._steps = 0

    def init_device(self) -> None: ...

    def load_model(self) -> None:
        # As vLLM's own worker does after its warm-up; otherwise each collection walks through all modules.
        freeze_gc_heap()

    def execute_model(self, scheduler_output: Any) -> None:
        if scheduler_output.scheduled_new_reqs or scheduler_output.finished_req_ids:
            self._outputs = _outputs(list(scheduler_output.num_scheduled_tokens))

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        self._steps += 1
        return self._outputs[self._steps % _VARIANTS]


def _outputs(ids: list[str]) -> list[ModelRunnerOutput]:
    """Outputs whose tokens differ from step to step, as in decoding."""
    index = {each: number for number, each in enumerate(ids)}
    return [
        ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index=index,
            sampled_token_ids=[[random.randrange(_VOCABULARY)] for _ in ids],
        )
        for _ in range(_VARIANTS)
    ]
