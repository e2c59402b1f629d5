"""Follower: what vLLM's `run_headless` makes of our executor on a node that isn't the head."""

from __future__ import annotations

from typing import Any

from mpspmd.nodes.follow import follow
from mpspmd.vllm.node_start import NodeStart


class Follower:
    """The ranks of such a node. Their requests come from the engine on the head.

    vLLM calls its methods in the main thread. A signal ends them with SystemExit.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._start = NodeStart.prepare(vllm_config)

    def start_worker_monitor(self, inline: bool = True) -> None:
        """Runs the node's ranks until the run ends. SystemExit(1), unless the head has ended it in
        order."""
        start = self._start
        assert start.place is not None
        try:
            code = follow(world_size=start.place.world_size, nodes=start.place, **start.arguments)
        except SystemExit:
            # From vLLM's handler of SIGTERM and SIGINT, without a code. But for the run it is a failure.
            code = 1
        finally:
            start.sweep()
            start.remove_lock()
        if code != 0:
            raise SystemExit(code)
