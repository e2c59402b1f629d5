"""The strategies of waiting change no result, and sleep when there is nothing to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import workers

from mpspmd import Engine, RuntimeConfig
from mpspmd.errors import RankError, StepTimeout
from mpspmd.machine.cores import usable_cores

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20


@pytest.fixture(scope="module", params=["spin", "yield", "park", "auto"])
def waiting_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    config = RuntimeConfig(wait=request.param)
    with Engine(workers.Calculator, world_size=2, config=config) as engine:
        yield engine


def lines(engine: Engine) -> list[Any]:
    return [engine._channel.status.line(rank).snapshot() for rank in range(engine.world_size)]


def test_calls_of_all_kinds_get_their_own_answers(waiting_engine: Engine, go: Path) -> None:
    engine = waiting_engine
    for value in range(200):
        assert engine.collective_rpc("echo", args=(value,)) == [value, value]
    big = [os.urandom(3 * MIB) for _ in range(8)]
    futures = [engine.collective_rpc("echo", args=(data,), non_block=True) for data in big]
    assert [future.result() for future in futures] == [[data, data] for data in big]
    with pytest.raises(StepTimeout):
        engine.collective_rpc("wait_for", args=(str(go), "late"), timeout=0.05)
    go.touch()
    with pytest.raises(RankError):
        engine.collective_rpc("fail_on", args=(1, "no"))
    assert engine.collective_rpc("rank") == [0, 1]


def test_messages_with_silence_between_them_come_through(waiting_engine: Engine) -> None:
    engine = waiting_engine
    for pause_s in (0.002, 0.02, 0.0, 0.002):
        for value in range(12):
            time.sleep(pause_s)
            assert engine.collective_rpc("echo", args=(value,)) == [value, value]


@pytest.fixture(scope="module")
def auto_engine() -> Iterator[Engine]:
    with Engine(workers.Calculator, world_size=2, config=RuntimeConfig(wait="auto")) as engine:
        yield engine


def test_an_idle_run_is_asleep(auto_engine: Engine) -> None:
    for _ in range(50):
        auto_engine.collective_rpc("rank")
    time.sleep(0.2)
    ranks = [psutil.Process(pid) for pid in auto_engine.pids]
    used = [sum(rank.cpu_times()[:2]) for rank in ranks]
    parks = [line["parks"] for line in lines(auto_engine)]
    began = time.monotonic()
    time.sleep(2)
    more = [line["parks"] - before for line, before in zip(lines(auto_engine), parks, strict=True)]
    # A rank polls for signals every 500 ms, and does nothing else.
    assert max(more) <= 4 * (time.monotonic() - began)
    assert all(sum(r.cpu_times()[:2]) - before < 0.2 for r, before in zip(ranks, used, strict=True))


def test_a_steady_rhythm_is_predicted_and_slept_through(auto_engine: Engine) -> None:
    def counts() -> dict[str, int]:
        return {
            key: sum(line[key] for line in lines(auto_engine))
            for key in ("parks", "yields", "early", "late", "mispredicted")
        }

    def keep_the_rhythm(times: int) -> None:
        for _ in range(times):
            time.sleep(0.01)
            auto_engine.collective_rpc("rank")

    for _ in range(10):  # on a busy machine a rank may often be too late to sleep
        keep_the_rhythm(20)
        before = counts()
        keep_the_rhythm(50)
        after = {key: value - before[key] for key, value in counts().items()}
        if after["parks"] >= 90 and after["mispredicted"] < 80:
            break
    # Each wait of each rank sleeps; most of them end while it looks, or by the bell just before.
    assert after["parks"] >= 90
    assert after["mispredicted"] < 80


def test_never_more_spin_than_there_are_cores_to_spare(
    auto_engine: Engine, eventually: Any
) -> None:
    spinning, allowed = auto_engine._channel.status.spinners
    assert allowed == usable_cores() - 1
    assert 0 <= spinning <= allowed
    most = 0
    for _ in range(60):
        time.sleep(0.003)
        auto_engine.collective_rpc("rank")
        most = max(most, auto_engine._channel.status.spinners[0])
    assert most <= allowed
    eventually(lambda: auto_engine._channel.status.spinners[0] == 0, "nobody spins any more")


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_engine_sleeps_while_a_step_is_under_way_if_it_has_a_core_of_its_own(
    world_size: int,
) -> None:
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:2])
    try:
        cores = usable_cores()
        config = RuntimeConfig(wait="auto")
        with Engine(workers.Calculator, world_size=world_size, config=config) as engine:

            def slept() -> bool:
                before = engine._channel.replies.wait_counts["parks"]
                engine.collective_rpc("sleep", args=(0.1,))
                return engine._channel.replies.wait_counts["parks"] > before

            for _ in range(6):
                slept()
            # On a busy machine a reply that is late is slept for in either case, and one that is there when
            # the engine looks at last is slept for in neither.
            times = sum(slept() for _ in range(10))
    finally:
        os.sched_setaffinity(0, usable)
    assert (times >= 8) == (cores > world_size)
