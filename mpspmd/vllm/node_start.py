"""How the ranks of a vLLM run start on one node: alike on the head and on every other node."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Self

from vllm import envs
from vllm.config import ParallelConfig, VllmConfig
from vllm.utils import numa_utils
from vllm.utils.network_utils import (
    aiter_requires_tcp_store,
    get_distributed_init_method,
    get_file_store_init_method,
    get_loopback_ip,
    get_open_port,
)
from vllm.v1.executor.multiproc_executor import set_multiprocessing_worker_envs

from mpspmd.bridge.place import NodePlace
from mpspmd.errors import ConfigError
from mpspmd.vllm.compat import pass_for_mp
from mpspmd.vllm.cpu_binding import CoreBinding, engine_place
from mpspmd.vllm.leftovers import leftovers, remove, sweep
from mpspmd.vllm.lock import lock_file, lock_name
from mpspmd.vllm.settings import Settings, read_settings
from mpspmd.vllm.worker import RankWorker


@dataclasses.dataclass(frozen=True)
class NodeStart:
    """What the ranks of one node get when they start. Each node makes its own."""

    vllm_config: VllmConfig
    settings: Settings

    init_method: str
    """Names the file through which the node's ranks meet, and the files in shared memory that they make.

    With several nodes the ranks meet at `tcp://master_addr:master_port` instead: vLLM decides that on each
    rank. Each node's name differs, and by that vLLM knows which ranks have no shared memory in common.
    """

    lock: str
    """The name of the lock that the node's ranks have in common while they start."""

    binding: CoreBinding

    @classmethod
    def prepare(cls, vllm_config: VllmConfig) -> Self:
        """Checks the configuration, and sets the variables that ranks inherit.

        Raises:
            ConfigError: a setting can't be used, or sizes contradict each other.
        """
        parallel = vllm_config.parallel_config
        _check_sizes(parallel)
        settings = read_settings(
            vllm_config.additional_config, os.environ, envs.VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS
        )
        pass_for_mp(parallel)
        _, engines = engine_place(parallel)
        set_multiprocessing_worker_envs(parallel.local_world_size * engines)
        binding = CoreBinding(vllm_config)
        return cls(vllm_config, settings, _distributed_init_method(), lock_name(), binding)

    @property
    def place(self) -> NodePlace | None:
        """This node's place among the engine's nodes; None if the engine has only one."""
        parallel = self.vllm_config.parallel_config
        if parallel.nnodes_within_dp == 1:
            return None
        return NodePlace(
            node_rank=parallel.node_rank_within_dp,
            num_nodes=parallel.nnodes_within_dp,
            local_world_size=parallel.local_world_size,
            head=parallel.master_addr.strip("[]"),  # mp takes an IPv6 address in brackets, too
            port=self.settings.bridge_port or parallel.master_port + 1,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `Engine` and `follow` that say how to start this node's ranks."""
        return {
            "worker": RankWorker,
            "args": (self.vllm_config, self.init_method, self.lock),
            "config": self.settings,
            "around_start": self._around,
            "remove_at_end": [*leftovers(self.init_method), lock_file(self.lock)],
        }

    def remove_lock(self) -> None:
        """Call it when the ranks have started, or can't start."""
        remove([lock_file(self.lock)])

    def sweep(self) -> None:
        """Call it when the ranks have ended. It may be called more than once."""
        sweep(self.init_method)

    @contextlib.contextmanager
    def _around(self, rank: int) -> Iterator[None]:
        """Around the start of a rank's process: its cores and its memory."""
        local_rank = rank % self.vllm_config.parallel_config.local_world_size
        with (
            self.binding.configure_omp_envs(rank=rank, local_rank=local_rank),
            numa_utils.configure_subprocess(self.vllm_config, local_rank, process_kind="worker"),
        ):
            yield


def _check_sizes(parallel: ParallelConfig) -> None:
    # In an engine of a dense model data_parallel_size is 1, but not in the configuration of its followers.
    if (
        parallel.nnodes_within_dp > 1
        and parallel.data_parallel_size + parallel.data_parallel_index > 1
    ):
        raise ConfigError(
            f"nnodes={parallel.nnodes} with data_parallel_size={parallel.data_parallel_size}: an engine on "
            "mp-spmd that is one of several must be on one node; use mp, or nodes for each engine alone"
        )
    tp, pp = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    pcp = parallel.prefill_context_parallel_size
    if parallel.world_size != tp * pp * pcp:
        raise ConfigError(
            f"world_size={parallel.world_size}: must be tensor_parallel_size ({tp}) x "
            f"pipeline_parallel_size ({pp}) x prefill_context_parallel_size ({pcp})"
        )


def _distributed_init_method() -> str:
    if aiter_requires_tcp_store():
        return get_distributed_init_method(get_loopback_ip(), get_open_port())
    return get_file_store_init_method()
