"""How a replay of a recording of vLLM starts its ranks: as the executor does, but without vLLM's engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from mpspmd.errors import ConfigError
from mpspmd.vllm.node_start import NodeStart

MEASURING = frozenset({"determine_available_memory", "compile_or_warm_up_model"})
"""Methods that reply times, or how much memory is free."""


@contextlib.contextmanager
def vllm_ranks(vllm_config: Any, **settings: Any) -> Iterator[dict[str, Any]]:
    """Arguments for an engine. ConfigError for a run over several machines."""
    if vllm_config.parallel_config.nnodes_within_dp > 1:
        raise ConfigError("a run of vLLM over several machines can't be replayed on one")
    start = NodeStart.prepare(vllm_config)
    try:
        yield start.arguments | {"config": dataclasses.replace(start.settings, **settings)}
    finally:
        start.sweep()
        start.remove_lock()
