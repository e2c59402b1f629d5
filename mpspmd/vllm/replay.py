"""How a replay of a recording of vLLM starts its ranks: as the executor does, but without vLLM's engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from mpspmd.errors import ConfigError
from mpspmd.vllm.leftovers import remove, sweep
from mpspmd.vllm.lock import lock_file
from mpspmd.vllm.node_start import NodeStart
from mpspmd.vllm.worker import RankWorker

MEASURING = frozenset({"determine_available_memory", "compile_or_warm_up_model"})
"""Methods that reply times, or how much memory is free."""


@contextlib.contextmanager
def vllm_ranks(vllm_config: Any, **settings: Any) -> Iterator[dict[str, Any]]:
    """Arguments for an engine. ConfigError for a run over several machines."""
    if vllm_config.parallel_config.nnodes_within_dp > 1:
        raise ConfigError("a run of vLLM over several machines can't be replayed on one")
    start = NodeStart.prepare(vllm_config)
    try:
        yield {
            "worker": RankWorker,
            "args": start.worker_args,
            "config": dataclasses.replace(start.settings, **settings),
            "around_start": start.around,
            "remove_at_end": start.remove_at_end,
        }
    finally:
        sweep(start.init_method)
        remove([lock_file(start.lock)])
