"""The cores of each CPU rank, where all engines on the machine share the cores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from vllm.config import VllmConfig
from vllm.platforms import CpuArchEnum, current_platform
from vllm.utils import cpu_resource_utils
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.utils.system_utils import set_env_var

from mpspmd.machine.cgroup import cpu_quota
from mpspmd.vllm.compat import noted_engines
from mpspmd.vllm.core_shares import reserve, share_out, threads_within


def engine_place(parallel_config: Any) -> tuple[int, int]:
    """In an engine: its number among the engines on this machine, and how many there are."""
    started = noted_engines(parallel_config)
    if started > 1:
        return parallel_config.data_parallel_rank_local or 0, started
    # Engines with a front end each. If they meet at a loopback address, all are on this machine.
    address, engines = parallel_config.data_parallel_master_ip, parallel_config.data_parallel_size
    if engines > 1 and (address in ("localhost", "::1") or address.startswith("127.")):
        return parallel_config.data_parallel_index, engines
    return 0, 1


class CoreBinding(OMPProcessManager):
    """Gives the ranks of all engines on the machine different NUMA nodes, or different parts of nodes.

    vLLM's own class gives each rank a node of its own, refuses if there are too few nodes, and gives the
    engines of one server the same nodes. If there are fewer cores than ranks, ranks share them. What the
    user binds with VLLM_CPU_OMP_THREADS_BIND stays as it is.
    """

    def __init__(self, config: VllmConfig) -> None:
        self._engine, self._engines = engine_place(config.parallel_config)
        self._quota = cpu_quota()
        super().__init__(config)

    @contextlib.contextmanager
    def configure_omp_envs(self, rank: int, local_rank: int) -> Iterator[None]:
        with super().configure_omp_envs(rank, local_rank), contextlib.ExitStack() as stack:
            for name, value in self._within_quota(local_rank).items():
                stack.enter_context(set_env_var(name, value))
            yield

    def _get_autobind_cpu_ids(
        self, cpu_selector: Callable[[list[Any]], list[Any]]
    ) -> tuple[list[list[Any]], list[Any]]:
        if self.simulate_multi_node:
            self.local_dp_rank, self.internal_dp_size = self._engine, self._engines
            shares, reserved = super()._get_autobind_cpu_ids(cpu_selector)
            return shares, reserved
        cores: dict[tuple[int, int], list[Any]] = {}
        for cpu in cpu_resource_utils.get_allowed_cpu_list():
            cores.setdefault((cpu.numa_node, cpu.physical_core), []).append(cpu)
        nodes: dict[int, list[Any]] = {}
        for (node, _), siblings in sorted(cores.items()):
            selected = cpu_selector(sorted(siblings, key=lambda cpu: cpu.id))
            nodes.setdefault(node, []).extend(selected)
        visible = {node: cpus for node, cpus in nodes.items() if cpus and self._is_visible(node)}
        shares = share_out(
            list((visible or nodes).values()), self._engine, self._engines, self.local_world_size
        )
        return reserve(shares, self.reserve_cpu_num)

    @staticmethod
    def _is_visible(node: int) -> bool:
        if current_platform.get_cpu_architecture() == CpuArchEnum.S390X:
            return True  # vLLM takes the "books" of this architecture for nodes
        return node in cpu_resource_utils.get_visible_memory_node()

    def _within_quota(self, local_rank: int) -> dict[str, str]:
        """If the CPU quota is below the number of cores: variables that give the rank fewer threads.

        With more threads than the quota allows, the kernel would stop all of them for a part of the time.
        Each thread may run on any of the rank's cores: if several containers with a quota have the same
        cores, they must not all bind their threads to the first ones.
        """
        if not current_platform.is_cpu() or not self.auto_setup:
            return {}
        cpus = self.cpu_lists[local_rank]
        threads = threads_within(self._quota, len(cpus), self._engines * self.local_world_size)
        if threads == len(cpus):
            return {}
        ids = ",".join(map(str, cpus))
        variables = {"OMP_NUM_THREADS": str(threads)}
        if self.use_iomp:
            variables["KMP_AFFINITY"] = f"granularity=fine,explicit,proclist=[{{{ids}}}]"
        elif self.use_gomp:
            variables |= {"OMP_PLACES": f"{{{ids}}}", "OMP_PROC_BIND": "true"}
        return variables
