"""CPU ranks on fewer NUMA nodes than ranks share the cores out between them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

pytest.importorskip("vllm")

from mpspmd.vllm.cpu_binding import CoreBinding, split


@dataclass
class Cpu:
    id: int
    physical_core: int
    numa_node: int


def binding(ranks: int, cpus: list[Cpu], monkeypatch: pytest.MonkeyPatch) -> CoreBinding:
    from vllm.utils import cpu_resource_utils

    monkeypatch.setattr(cpu_resource_utils, "get_allowed_cpu_list", lambda: cpus)
    nodes = sorted({cpu.numa_node for cpu in cpus})
    monkeypatch.setattr(cpu_resource_utils, "get_visible_memory_node", lambda: nodes)
    made = CoreBinding.__new__(CoreBinding)
    made.local_world_size = made.reserve_cpu_num = ranks
    made.simulate_multi_node = False
    return made


def ids(shares: list[list[Cpu]]) -> list[list[int]]:
    return [[cpu.id for cpu in share] for share in shares]


def test_two_ranks_on_a_node_of_two_cores_get_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = [Cpu(0, 0, 0), Cpu(1, 1, 0)]
    shares, reserved = binding(2, cpus, monkeypatch)._get_autobind_cpu_ids(lambda group: group[-1:])
    assert ids(shares) == [[0], [1]]
    assert reserved == []


def test_sibling_threads_are_not_given_to_different_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = [Cpu(number, number % 8, 0) for number in range(16)]
    shares, reserved = binding(2, cpus, monkeypatch)._get_autobind_cpu_ids(lambda group: group[-1:])
    assert ids(shares) == [[8, 9, 10], [11, 12, 13]]
    assert [cpu.id for cpu in reserved] == [14, 15]


def test_a_ranks_cores_lie_on_one_node_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = [Cpu(number, number, number % 2) for number in range(12)]
    shares, _ = binding(4, cpus, monkeypatch)._get_autobind_cpu_ids(lambda group: group)
    assert ids(shares) == [[0, 2], [4, 6], [8, 10], [1, 3]]


@pytest.mark.parametrize(("items", "parts"), [(1, 2), (2, 2), (5, 2), (7, 3), (3, 8)])
def test_every_part_has_a_share_and_nothing_is_left(items: int, parts: int) -> None:
    shares = split(list(range(items)), parts)
    assert len(shares) == parts
    assert all(shares)
    assert {item for share in shares for item in share} == set(range(items))
