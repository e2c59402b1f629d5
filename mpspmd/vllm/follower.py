"""Follower: what vLLM's `run_headless` makes of our executor on a node that isn't the head."""

from __future__ import annotations

from typing import Any

from mpspmd.vllm.rank_start import RankStart


class Follower:
    """The ranks of a node that isn't the head. The engine on the head node sends their requests."""

    def __init__(self, vllm_config: Any) -> None:
        self._start = RankStart.prepare(vllm_config)
