"""The plugin that vLLM loads in each of its processes: it makes the name `mp-spmd` known.

Classes derived from our executor, given as a class or by their path, are treated as our executor is.
"""

from __future__ import annotations

from typing import Any

from mpspmd.transport.descriptor import open_standard_descriptors
from mpspmd.vllm import causes
from mpspmd.vllm.compat import chain_causes, know_backend, note_engines
from mpspmd.vllm.node_compat import allow_nodes


def register() -> None:
    """The entry point in `vllm.general_plugins`. May be called any number of times; never raises:
    an exception here would break every vLLM in the environment, also those that don't use it."""
    know_backend(_prepare_front_end)
    allow_nodes(_make_follower)


def _prepare_front_end(parallel_config: Any) -> None:
    """Before it starts an engine on our executor."""
    open_standard_descriptors()
    chain_causes(causes.latest)
    causes.open_file()
    note_engines(parallel_config)


def _make_follower(vllm_config: Any) -> Any:
    from mpspmd.vllm.follower import Follower

    open_standard_descriptors()
    return Follower(vllm_config)
