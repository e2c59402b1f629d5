"""CPU ranks get cores of their own, whatever NUMA nodes and engines there are."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("vllm")

from vllm.config import ParallelConfig
from vllm.utils import cpu_resource_utils
from vllm.utils.ompmultiprocessing import OMPProcessManager

from mpspmd.vllm.compat import note_engines
from mpspmd.vllm.cpu_binding import CoreBinding, engine_place


@dataclass
class Cpu:
    id: int
    physical_core: int
    numa_node: int


Selector = Any
last: Selector = lambda siblings: siblings[-1:]  # noqa: E731  as vLLM selects on x86
every: Selector = lambda siblings: siblings  # noqa: E731  and on ARM


def machine(cpus: list[Cpu], visible: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_resource_utils, "get_allowed_cpu_list", lambda: cpus)
    monkeypatch.setattr(cpu_resource_utils, "get_visible_memory_node", lambda: visible)


def bind(
    kind: type[OMPProcessManager], ranks: int, engine: int = 0, engines: int = 1, **attributes: Any
) -> Any:
    made = kind.__new__(kind)
    defaults = {"local_world_size": ranks, "reserve_cpu_num": ranks, "simulate_multi_node": False}
    vars(made).update(defaults | {"_engine": engine, "_engines": engines} | attributes)
    return made


def ids(bound: tuple[list[list[Cpu]], list[Cpu]]) -> tuple[list[list[int]], list[int]]:
    shares, reserved = bound
    return [[cpu.id for cpu in share] for share in shares], [cpu.id for cpu in reserved]


def test_two_ranks_on_a_node_of_two_cores_get_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(0, 0, 0), Cpu(1, 1, 0)], [0], monkeypatch)
    assert ids(bind(CoreBinding, 2)._get_autobind_cpu_ids(last)) == ([[0], [1]], [])


def test_sibling_threads_are_not_given_to_different_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(number, number % 8, 0) for number in range(16)], [0], monkeypatch)
    shares, reserved = ids(bind(CoreBinding, 2)._get_autobind_cpu_ids(last))
    assert (shares, reserved) == ([[8, 9, 10], [12, 13, 14]], [11, 15])


def test_a_ranks_cores_lie_on_one_node_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(number, number, number % 2) for number in range(12)], [0, 1], monkeypatch)
    shares, _ = ids(bind(CoreBinding, 4)._get_autobind_cpu_ids(every))
    assert shares == [[0, 2], [6, 8], [1, 3], [7, 9]]


def test_two_engines_on_one_node_have_no_core_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(number, number, 0) for number in range(12)], [0], monkeypatch)
    bound = [
        ids(bind(CoreBinding, 2, engine, 2)._get_autobind_cpu_ids(last)) for engine in range(2)
    ]
    assert bound == [([[0, 1], [3, 4]], [2, 5]), ([[6, 7], [9, 10]], [8, 11])]


def test_two_engines_on_four_nodes_have_two_each(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(number, number, number // 2) for number in range(8)], [0, 1, 2, 3], monkeypatch)
    bound = [
        ids(bind(CoreBinding, 2, engine, 2)._get_autobind_cpu_ids(last)) for engine in range(2)
    ]
    assert bound == [([[0], [2]], [1, 3]), ([[4], [6]], [5, 7])]


def test_nodes_that_the_user_has_hidden_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machine([Cpu(number, number, number // 4) for number in range(8)], [1], monkeypatch)
    shares, reserved = ids(bind(CoreBinding, 2)._get_autobind_cpu_ids(last))
    assert (shares, reserved) == ([[4], [6]], [5, 7])


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("selector", [last, every])
@pytest.mark.parametrize("reserved", [0, 1, 3, 4])
@pytest.mark.parametrize("node_of", [lambda core: core // 4, lambda core: core % 4])
def test_with_a_node_for_each_rank_of_one_engine_the_cores_are_those_that_vllm_gives(
    ranks: int,
    selector: Selector,
    reserved: int,
    node_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpus = [Cpu(number, number // 2, node_of(number // 2)) for number in range(32)]
    machine(cpus, [0, 1, 2, 3], monkeypatch)
    ours, theirs = (
        ids(bind(kind, ranks, reserve_cpu_num=reserved)._get_autobind_cpu_ids(selector))
        for kind in (CoreBinding, OMPProcessManager)
    )
    assert ours == theirs


def test_vllms_simulated_nodes_are_shared_out_between_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine([Cpu(number, number, 0) for number in range(8)], [0], monkeypatch)
    bound = [
        ids(
            bind(
                CoreBinding, 2, engine, 2, simulate_multi_node=True, reserve_cpu_num=0
            )._get_autobind_cpu_ids(last)
        )
        for engine in range(2)
    ]
    assert bound == [([[0, 1], [2, 3]], []), ([[4, 5], [6, 7]], [])]


# What vLLM's engine process does with its configuration, for each way to start several.


def _dense(config: ParallelConfig, local_rank: int) -> None:
    config.data_parallel_rank_local = config.data_parallel_index = local_rank
    config.reconfigure_for_independent_dp_rank()


def _moe(config: ParallelConfig, local_rank: int) -> None:
    config.data_parallel_rank_local = config.data_parallel_index = local_rank
    config.data_parallel_rank = local_rank


def _moe_with_its_own_server(config: ParallelConfig, rank: int) -> None:
    config.data_parallel_rank_local = 0
    config.data_parallel_rank = config.data_parallel_index = rank


@pytest.mark.parametrize(
    ("options", "become", "place"),
    [
        ({}, None, (0, 1)),
        ({"data_parallel_size": 2, "data_parallel_size_local": 2}, _dense, (1, 2)),
        ({"data_parallel_size": 4, "data_parallel_size_local": 2}, _dense, (1, 2)),
        ({"data_parallel_size": 2, "data_parallel_size_local": 2}, _moe, (1, 2)),
        ({"data_parallel_size": 3, "data_parallel_external_lb": True}, _moe_with_its_own_server, (1, 3)),
        (
            {
                "data_parallel_size": 3,
                "data_parallel_external_lb": True,
                "data_parallel_master_ip": "10.0.0.1",
            },
            _moe_with_its_own_server,
            (0, 1),
        ),
    ],
)  # fmt: skip
def test_an_engine_knows_its_place_among_those_of_its_machine(
    options: dict[str, Any], become: Any, place: tuple[int, int]
) -> None:
    config = ParallelConfig(**options)
    note_engines(config)
    if become is not None:
        become(config, 1)
    assert engine_place(config) == place


def test_an_engine_does_not_take_itself_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    config = ParallelConfig(data_parallel_size=2, data_parallel_size_local=2)
    note_engines(config)
    _dense(config, 1)
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {}, raising=False)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "EngineCore_DP1")
    note_engines(config)  # vLLM asks for the executor's class there too
    assert engine_place(config) == (1, 2)


# Which threads there are, and where each may run, once OpenMP has started them.
THREADS = """
import os, torch
torch.randn(10_000_000).sin().sum()
cores = {tuple(sorted(os.sched_getaffinity(int(task)))) for task in os.listdir("/proc/self/task")}
print(torch.get_num_threads(), *cores)
"""


@pytest.mark.parametrize("library", ["gomp", "iomp", "none"])
def test_under_a_quota_a_rank_has_fewer_threads_which_may_run_on_all_its_cores(
    library: str,
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core only")
    preload = _preload(library)
    made = bind(
        CoreBinding, 1, _quota=1.5, auto_setup=True, skip_setup=False, cpu_lists=[cores[:2]],
        use_iomp=library == "iomp", use_gomp=library == "gomp",
    )  # fmt: skip
    before = dict(os.environ)
    with made.configure_omp_envs(rank=0, local_rank=0):
        environment = os.environ | ({"LD_PRELOAD": preload} if preload else {})
        done = subprocess.run(
            [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True
        )
    assert done.stdout == f"1 {tuple(cores[:2])}\n", done.stderr
    assert dict(os.environ) == before


def _preload(library: str) -> str | None:
    from pathlib import Path

    import torch

    if library == "none":
        return None
    folders = [Path(torch.__file__).parent / "lib", Path(sys.prefix) / "lib"]
    found = [path for folder in folders for path in folder.glob(f"lib{library}*.so*")]
    if not found:
        pytest.skip(f"lib{library} isn't installed")
    return str(found[0])
