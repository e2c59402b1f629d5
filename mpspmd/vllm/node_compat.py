"""What we change in vLLM for a run over several nodes. The table in compat.py says why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mpspmd.vllm.compat import checked_as_mp, doing_without, means_ours, wrap

_SERVE = "vllm.entrypoints.cli.serve"


def allow_nodes(make_follower: Callable[[Any], Any]) -> None:
    """Our executor may have several nodes, as `mp` may. Any number of times.

    `make_follower` gets the VllmConfig of a node that isn't the head, and returns what vLLM's
    `run_headless` takes for the executor there. It calls its `start_worker_monitor(inline=True)`, and ends.
    """
    with doing_without("'mp-spmd' can't be used with more than one node"):
        from vllm.config.parallel import ParallelConfig

        def check(original: Callable[..., Any], config: Any, *args: Any, **kwargs: Any) -> Any:
            if config.nnodes == 1 or not means_ours(config.distributed_executor_backend):
                return original(config, *args, **kwargs)
            _replace_followers(make_follower)
            with checked_as_mp(config):
                return original(config, *args, **kwargs)

        wrap((ParallelConfig, "__post_init__", check))


def _replace_followers(make_follower: Callable[[Any], Any]) -> None:
    # run_headless makes the config. So if the config is made for it, its module is loaded.
    serve = sys.modules.get(_SERVE)
    if serve is None:
        return

    def make(original: Callable[..., Any], vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        if means_ours(vllm_config.parallel_config.distributed_executor_backend):
            return make_follower(vllm_config)
        return original(vllm_config, *args, **kwargs)

    with doing_without("'mp-spmd' can't be used with --headless on another node than the head"):
        wrap((serve, "MultiprocExecutor", make))
