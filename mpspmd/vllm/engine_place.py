"""Which of the engines on this machine an engine is, where data parallelism starts several of them."""

from __future__ import annotations

from typing import Any

from mpspmd.vllm.compat import noted_engines


def engine_place(parallel_config: Any) -> tuple[int, int]:
    """In an engine: its number among the engines on this machine, and how many there are."""
    started = noted_engines(parallel_config)
    if started > 1:
        return parallel_config.data_parallel_rank_local or 0, started
    # Engines with a front end each. If they meet at a loopback address, all are on this machine.
    if parallel_config.data_parallel_size > 1 and _is_loopback(
        parallel_config.data_parallel_master_ip
    ):
        return parallel_config.data_parallel_index, parallel_config.data_parallel_size
    return 0, 1


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")
