"""ExecutorConfig: the engine's settings, and those that only vLLM has."""

from __future__ import annotations

import dataclasses

from mpspmd.config import RuntimeConfig


@dataclasses.dataclass(frozen=True)
class ExecutorConfig(RuntimeConfig):
    """As `RuntimeConfig`, variables and all."""

    answer_early: bool = True
    """vLLM's `execute_model` is answered at once, and a step has one reply, that of `sample_tokens`."""
