"""Which of the engines of this machine an engine is: those that data parallelism starts beside it."""

from __future__ import annotations

from typing import Any

from mpspmd.vllm.engine_core import is_engine_core

_STARTED = "_mpspmd_engines_started"


def note_engines(parallel_config: Any) -> None:
    """In the front end, before it starts its engines: how many they will be.

    vLLM doesn't tell the engines of dense models: it makes them look like engines that are alone.
    """
    if not is_engine_core():
        setattr(parallel_config, _STARTED, parallel_config.data_parallel_size_local)


def engine_place(parallel_config: Any) -> tuple[int, int]:
    """In an engine: its number among the engines of this machine, and how many there are."""
    started = getattr(parallel_config, _STARTED, 1)
    if started > 1:
        return parallel_config.data_parallel_rank_local or 0, started
    # Engines with a front end each. Those that meet at a loopback address are all on this machine.
    if parallel_config.data_parallel_size > 1 and _is_loopback(
        parallel_config.data_parallel_master_ip
    ):
        return parallel_config.data_parallel_index, parallel_config.data_parallel_size
    return 0, 1


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")
