"""Which cores each CPU rank gets, of those that all engines of the machine share."""

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
from mpspmd.vllm.core_shares import reserve, share_out, threads_within
from mpspmd.vllm.engine_place import engine_place


class CoreBinding(OMPProcessManager):
    """vLLM gives each rank a NUMA node of its own, and refuses when there are too few nodes. Engines of
    the same server get the same nodes.

    Here the ranks of all engines get different nodes, or parts of nodes. Where there are fewer cores than
    ranks, ranks share them. What the user binds with VLLM_CPU_OMP_THREADS_BIND stays as it is.
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
            return True  # there vLLM counts books of cores as nodes
        return node in cpu_resource_utils.get_visible_memory_node()

    def _within_quota(self, local_rank: int) -> dict[str, str]:
        """With a CPU quota below the cores, more threads would use it up, and all of them be stopped.

        So there are fewer threads, and each may run on any of the rank's cores: containers that have the
        same cores of a machine, and a quota each, would all bind their threads to the first of them.
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
