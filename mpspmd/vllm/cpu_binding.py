"""Which cores each CPU rank gets: vLLM's own choice, and one for machines that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.utils import cpu_resource_utils
from vllm.utils.ompmultiprocessing import OMPProcessManager


class CoreBinding(OMPProcessManager):
    """vLLM gives each rank a NUMA node of its own, and refuses when there are too few nodes.

    Then the allowed cores are split between the ranks, in the order of their nodes; where there are
    fewer cores than ranks, ranks share them.
    """

    def _get_autobind_cpu_ids(
        self, cpu_selector: Callable[[list[Any]], list[Any]]
    ) -> tuple[list[list[Any]], list[Any]]:
        nodes = cpu_resource_utils.get_visible_memory_node()
        if len(nodes) >= self.local_world_size or self.simulate_multi_node:
            return super()._get_autobind_cpu_ids(cpu_selector)
        cores: dict[tuple[int, int], list[Any]] = {}
        for cpu in cpu_resource_utils.get_allowed_cpu_list():
            cores.setdefault((cpu.numa_node, cpu.physical_core), []).append(cpu)
        cpus = [
            cpu
            for _, siblings in sorted(cores.items())
            for cpu in cpu_selector(sorted(siblings, key=lambda cpu: cpu.id))
        ]
        reserved: list[Any] = []
        # As vLLM does: cores for the other processes, where there are any to spare.
        if len(cpus) >= self.reserve_cpu_num + self.local_world_size:
            kept = len(cpus) - self.reserve_cpu_num
            cpus, reserved = cpus[:kept], cpus[kept:]
        return split(cpus, self.local_world_size), reserved


def split(items: list[Any], parts: int) -> list[list[Any]]:
    """Contiguous shares that differ by one at most; with too few items, each part has one."""
    if len(items) < parts:
        return [[items[part % len(items)]] for part in range(parts)]
    ends = [len(items) * (part + 1) // parts for part in range(parts)]
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]
