"""A node's place in a run over several nodes follows from vLLM's own options."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import ParallelConfig

from mpspmd.bridge.place import NodePlace
from mpspmd.errors import ConfigError
from mpspmd.vllm.executor import MpSpmdExecutor
from mpspmd.vllm.node_start import NodeStart
from mpspmd.vllm.settings import Settings


def start(settings: Settings | None = None, **options: Any) -> NodeStart:
    parallel = ParallelConfig(
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        master_port=4000,
        distributed_executor_backend=MpSpmdExecutor,
        **{"master_addr": "10.0.0.1"} | options,
    )
    config = SimpleNamespace(parallel_config=parallel)
    nothing: Any = None
    return NodeStart(config, settings or Settings(), "file:///tmp/x", "/lock", nothing)


def test_a_run_on_one_node_has_no_place() -> None:
    assert start().place is None


@pytest.mark.parametrize(("node", "nodes", "ranks"), [(0, 2, 2), (1, 2, 2), (3, 4, 1)])
def test_the_ranks_are_shared_out_evenly_and_the_port_follows_the_master_port(
    node: int, nodes: int, ranks: int
) -> None:
    place = start(nnodes=nodes, node_rank=node).place
    assert place == NodePlace(node, nodes, ranks, "10.0.0.1", 4001)


@pytest.mark.parametrize("address", ["::1", "[::1]"])
def test_an_ipv6_address_may_be_in_brackets(address: str) -> None:
    place = start(nnodes=2, master_addr=address).place
    assert place is not None
    assert place.address == "[::1]:4001"


def test_a_setting_chooses_the_port() -> None:
    place = start(Settings(bridge_port=7000), nnodes=2).place
    assert place is not None
    assert place.port == 7000


def test_engines_that_have_a_node_each_have_no_place() -> None:
    assert (
        start(nnodes=2, node_rank=1, data_parallel_size=2, data_parallel_size_local=1).place is None
    )


def test_one_of_several_engines_may_not_have_several_nodes() -> None:
    config = start(nnodes=4, data_parallel_size=2, data_parallel_size_local=1).vllm_config
    config.additional_config = {}
    with pytest.raises(
        ConfigError, match=r"nnodes=4 with data_parallel_size=2.*must be on one node"
    ):
        NodeStart.prepare(config)
