"""vLLM's collectives in shared memory are timed and counted, whoever calls them, and work as before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import collective_worker
import pytest

import mpspmd
from mpspmd._ring import Recorder
from mpspmd.engine import rank_stacks
from mpspmd.errors import StepTimeout
from mpspmd.observe.records import Records, parse
from mpspmd.observe.straggler import straggler

GROUP = "tp:0-[0-1]"


@pytest.fixture(scope="module")
def engine() -> Iterator[mpspmd.Engine]:
    config = mpspmd.RuntimeConfig(shutdown_timeout_s=1)
    with mpspmd.Engine(
        collective_worker.Collecting,
        world_size=2,
        config=config,
        # vLLM's groups leave them.
        remove_at_end=[f"/dev/shm/mpspmd-test-{os.getpid()}-*-cpushm_[01]"],
    ) as engine:
        engine.collective_rpc("all_gather")  # so that each rank has a last one
        yield engine


def records(engine: mpspmd.Engine) -> Records:
    return parse(Recorder(engine._ending._segments.recorder.fd).copy(), time.monotonic_ns())


def waited_s(engine: mpspmd.Engine, method: str, *args: Any) -> list[float]:
    """How long each rank has waited for the other one in this call."""
    engine.collective_rpc(method, args=args)
    step = engine.stats().steps
    engine.collective_rpc("all_reduce")  # so that the record of the step before is complete
    tables = records(engine).ranks
    return [float(table["collective"][table["step"] == step][0]) / 1e9 for table in tables]


def last_of(worker: Any) -> Any:
    from mpspmd.rank.collectives import last_collectives

    return next(each for each in last_collectives() if each.group == "tp:0-[0-1]")


@pytest.mark.parametrize(
    ("method", "replies"),
    [
        ("all_reduce", [[3, 3], [3, 3]]),
        ("compiled_all_reduce", [[7, 7], [7, 7]]),
        ("all_gather", [[0, 1], [0, 1]]),
        ("gather", [[0, 1], None]),
        ("pass_on", [[], [0, 63]]),
    ],
)
def test_they_work_and_their_time_is_known(
    engine: mpspmd.Engine, method: str, replies: list[Any]
) -> None:
    assert engine.collective_rpc(method) == replies
    assert all(seconds > 0 for seconds in waited_s(engine, method))


def test_those_of_a_group_that_was_made_earlier_work(engine: mpspmd.Engine) -> None:
    assert engine.collective_rpc("all_reduce_earlier") == [[3, 3], [3, 3]]


def test_the_time_is_that_of_the_rank_that_waits(engine: mpspmd.Engine) -> None:
    # On a busy machine one of them may come late, too: then another call may show it.
    for _ in range(20):
        sender, receiver = waited_s(engine, "pass_on")
        if sender < 0.1 < 0.19 < receiver:
            break
    assert sender < 0.1 < 0.19 < receiver


def test_the_last_one_is_counted(engine: mpspmd.Engine) -> None:
    before = engine.collective_rpc(last_of)
    engine.collective_rpc("all_gather")
    after = engine.collective_rpc(last_of)
    assert [each.number for each in after] == [each.number + 1 for each in before]
    assert {(each.kind, each.sizes, each.done) for each in after} == {
        ("shm_all_gather", "[[1, 64]]", True)
    }


def test_what_a_compiler_traces_is_not_counted(engine: mpspmd.Engine) -> None:
    before = engine.collective_rpc(last_of)
    engine.collective_rpc("compiled_all_reduce")  # compiles it anew
    after = engine.collective_rpc(last_of)
    assert [each.number for each in after] == [each.number + 1 for each in before]


def test_the_rank_that_sleeps_longer_before_an_all_reduce_is_the_straggler(
    engine: mpspmd.Engine,
) -> None:
    # On a busy machine a rank that waits for a processor is late, too: then another run may show it.
    for _ in range(20):
        began = time.monotonic_ns()
        for _ in range(100):
            engine.execute_model(1, 0.02)
        found = straggler(records(engine).since(began))
        if found is not None and found.rank == 1 and found.late_s > 0.01:
            return
    pytest.fail(
        f"in 20 runs rank 1 was never late by half of its sleep; the last one found {found}"
    )


def test_the_rank_that_skips_one_is_named_with_it_and_the_line(
    engine: mpspmd.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_stacks, "_ANSWER_S", 20.0)  # for a busy machine
    (number, _) = (each.number for each in engine.collective_rpc(last_of))
    with pytest.raises(StepTimeout) as raised:
        engine.collective_rpc("all_reduce_without", args=(1,), timeout=2)
    engine.collective_rpc("all_reduce_without", args=(0,))  # now they are in step again
    first, second, third = str(raised.value.report).splitlines()[:3]
    assert first.endswith("waiting for rank 1")
    waits = f"shm_allreduce {number + 1} of {GROUP}, sizes [[2, 64]], in which rank 0 waits"
    assert f"rank 1 has not joined: {waits}" in second
    assert third.startswith(f"rank 0 is at {collective_worker.__file__}:")
    assert third.endswith("in _all_reduce: torch.ops._C.shm_allreduce(handle, data)")
