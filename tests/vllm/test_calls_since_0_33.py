"""Calls that vLLM 0.33 makes of an executor, and 0.32 doesn't, reach every rank with all they carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_steps import start
from vllm.v1.executor.abstract import Executor

pytestmark = pytest.mark.skipif(
    not hasattr(Executor, "get_simple_cpu_offload_num_blocks"), reason="vLLM has them since 0.33"
)


@pytest.fixture(scope="module")
def executor(model: Path) -> Iterator[Any]:
    made = start(model, asynchronous=False)
    yield made
    made.shutdown()


def test_the_layout_of_the_cache_and_the_interleaving_reach_every_rank(executor: Any) -> None:
    executor.set_kv_cache_layout("LBNHC", 4)
    assert executor.collective_rpc("kv_cache_layout") == [["LBNHC", 4]] * 2
    executor.set_kv_cache_layout(layout_name="LBNHC", cp_kv_cache_interleave_size=1)
    assert executor.collective_rpc("kv_cache_layout") == [["LBNHC", 1]] * 2


def test_blocks_that_are_offloaded_are_as_many_as_every_rank_has(executor: Any) -> None:
    assert executor.get_simple_cpu_offload_num_blocks() == 10


def test_a_profiler_gets_its_arguments(executor: Any) -> None:
    executor.collective_rpc("take_events")
    executor.profile(True, "prefix", profiler_kwargs={"with_stack": True})
    executor.profile(is_start=False)
    assert (
        executor.collective_rpc("take_events")
        == [["profile True prefix {'with_stack': True}", "profile False None None"]] * 2
    )


def test_an_argument_that_the_worker_does_not_know_reaches_no_rank(executor: Any) -> None:
    executor.collective_rpc("take_events")
    with pytest.raises(ValueError, match="max_iterations"):
        executor.profile(True, max_iterations=3)
    assert executor.collective_rpc("take_events") == [[], []]
