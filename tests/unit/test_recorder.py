"""The recorder: when what happened in each step, as the engine and each rank have noted it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import workers

import mpspmd
from mpspmd import Engine, RuntimeConfig
from mpspmd._ring import Recorder
from mpspmd.errors import ConfigError
from mpspmd.observe.records import NoRecords, Records, parse
from mpspmd.transport.segment import Segment

pytestmark = pytest.mark.timeout(60)


def records_of(engine: Engine) -> Records:
    return parse(Recorder(engine._ending._segments.recorder.fd).copy(), time.monotonic_ns())


def row(table: Any, step: int) -> Any:
    (found,) = table[table["step"] == step]
    return found


def test_each_step_is_recorded_from_its_request_to_its_reply(engine: Engine) -> None:
    before = time.monotonic_ns()
    assert engine.collective_rpc("sleep", args=(0.03, "x" * 1000)) == ["x" * 1000] * 2
    step = engine.stats().steps
    engine.collective_rpc("echo", args=(1,))  # The rank goes on to its next step.
    records = records_of(engine)
    sent = row(records.engine, step)
    assert before < sent["sent"] < sent["first"] <= sent["last"] < time.monotonic_ns()
    assert sent["replies"] == 2
    assert sent["bytes_out"] > 1000
    assert sent["bytes_in"] > 2000
    for rank, table in enumerate(records.ranks):
        done = row(table, step)
        assert records.method(rank, done["method"]) == "sleep"
        # Several writers' clocks: a request may be received while its sender reads the clock.
        assert before < done["received"] <= done["started"] < done["finished"] <= done["replied"]
        assert 30e6 < done["finished"] - done["started"] < 30e9
        assert done["bytes_in"] == sent["bytes_out"]
        assert done["bytes_out"] * 2 == sent["bytes_in"]
        assert done["collective"] == 0


def test_large_messages_and_callables_are_recorded_as_well(engine: Engine) -> None:
    data = bytes(3_000_000)
    assert engine.collective_rpc(lambda worker, data: len(data), args=(data,)) == [len(data)] * 2
    step = engine.stats().steps
    engine.collective_rpc("echo", args=(data,))
    records = records_of(engine)
    assert row(records.engine, step)["bytes_out"] > len(data)
    assert row(records.engine, step + 1)["bytes_in"] > 2 * len(data)
    for rank, table in enumerate(records.ranks):
        done = row(table, step)
        assert records.method(rank, done["method"]).startswith("test_large_messages")
        assert 0 < done["received"] < done["started"] <= done["finished"]


def test_a_step_that_nobody_answers_is_finished_without_a_reply(engine: Engine) -> None:
    engine.call("add", (0,), reply_ranks=None)
    step = engine.stats().steps
    engine.collective_rpc("echo", args=(1,))
    records = records_of(engine)
    assert (row(records.engine, step)["last"], row(records.engine, step)["replies"]) == (0, 0)
    for table in records.ranks:
        done = row(table, step)
        assert done["finished"] > done["started"]
        assert done["replied"] == 0


def test_a_method_that_raises_has_a_reply(engine: Engine) -> None:
    with pytest.raises(mpspmd.RankError):
        engine.collective_rpc("fail", args=("no",))
    step = engine.stats().steps
    engine.collective_rpc("echo", args=(1,))
    for table in records_of(engine).ranks:
        assert row(table, step)["started"] < row(table, step)["replied"]


def test_the_last_steps_stay_and_older_ones_go() -> None:
    config = RuntimeConfig(record_steps=8)
    with Engine(workers.Calculator, world_size=1, config=config) as engine:
        for _ in range(20):
            engine.collective_rpc("echo", args=(1,))
        records = records_of(engine)
    for table in (records.engine, *records.ranks):
        assert list(table["step"]) == list(range(13, 21))


def test_a_paused_track_records_nothing_until_it_goes_on() -> None:
    with Engine(workers.Calculator, world_size=1) as engine:

        def pause(paused: bool) -> None:
            engine._channel.track.pause(paused)
            engine.collective_rpc(lambda worker: worker.ctx._track.pause(paused))

        engine.collective_rpc("echo", args=(1,))
        pause(True)
        paused = engine.stats().steps
        for _ in range(3):
            engine.collective_rpc("echo", args=(1,))
        between = records_of(engine)
        pause(False)
        engine.collective_rpc("echo", args=(1,))
        engine.collective_rpc("echo", args=(1,))
        after = records_of(engine)
    steps = engine.stats().steps
    assert list(between.engine["step"]) == [paused - 1]
    assert list(between.ranks[0]["step"]) == [paused - 1, paused]  # which is when it was paused
    assert list(after.engine["step"])[-2:] == [steps - 1, steps]
    done = row(after.ranks[0], steps - 1)
    assert 0 < done["received"] <= done["started"] < done["finished"] <= done["replied"]
    assert row(after.ranks[0], paused)["finished"] == 0, "not when the pause ends"


def test_nothing_is_recorded_with_0_steps() -> None:
    config = RuntimeConfig(record_steps=0)
    with Engine(workers.Calculator, world_size=1, config=config) as engine:
        assert engine._ending._segments.recorder is None
        assert engine.collective_rpc("echo", args=(1,)) == [1]


@pytest.mark.parametrize("steps", [-8, 1, 100, 1 << 21, 4096.0, "8"])
def test_a_number_of_steps_that_is_not_possible_is_refused(steps: Any) -> None:
    with pytest.raises(ConfigError, match=r"record_steps=.*: must be 0 or a power of two"):
        RuntimeConfig(record_steps=steps)


def test_what_is_no_recorder_is_not_read() -> None:
    segment = Segment.create(Recorder.segment_bytes(2, 8))
    Recorder.format(segment.fd, 2, 8, 1)
    whole = Recorder(segment.fd).copy()
    segment.close()
    assert len(parse(whole, 0).engine) == 0
    for data in (b"", whole[:-1], b"x" + whole[1:]):
        with pytest.raises(NoRecords):
            parse(data, 0)
