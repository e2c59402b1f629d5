"""Steps as deltas between a real engine and its ranks, when all goes well and when it doesn't."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import CODEC, Batch, Outcome, Rows, Sampler, joined
from same import assert_same
from workers import wait_for

from mpspmd import Engine, RuntimeConfig
from mpspmd.errors import CodecDesync, DecodeError, RankError, StepTimeout


class SlowSampler(Sampler):
    """Its replies are finished by a thread, when the rank has long been at the next requests."""

    reply_thread = True

    def execute_model(self, batch: Batch, *more: Any, **named: Any) -> Any:
        if isinstance(batch.anything, Path):
            wait_for(str(batch.anything))
        return super().execute_model(batch, *more, **named)

    def finish_reply(self, result: Any) -> Any:
        time.sleep(0.002)
        return result


def start(worker: type = Sampler, **settings: Any) -> Engine:
    return Engine(
        worker,
        world_size=2,
        step_codec=CODEC,
        config=RuntimeConfig.from_env(**settings),
        fatal_methods=(),
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with start(SlowSampler, request_ring_bytes=1 << 16) as engine:
        yield engine


def batch(step: int, **more: Any) -> Batch:
    """Each step one request comes and one goes; all have one more token."""
    keys = [f"r{number}" for number in range(step, step + 20)]
    rows = Rows(keys[:-1], [number + step for number in range(19)])
    finished = {f"r{step - 1}"}
    return Batch(dict.fromkeys(keys, 1), 20, rows, finished=finished, **more)


def expected(sent: Batch, *more: Any, **named: Any) -> Outcome:
    keys = list(sent.counts)[::-1]
    tokens = [[1, -1] for _ in keys]
    return Outcome(keys, {key: i for i, key in enumerate(keys)}, tokens, (more, named))


def test_every_rank_gets_what_was_sent_and_its_reply_comes_back(engine: Engine) -> None:
    for step in range(30):
        sent = batch(step, anything=np.arange(step * 100))
        for outcome in engine.collective_rpc("execute_model", (sent,)):
            assert_same(expected(sent), outcome)


def test_steps_in_flight_are_answered_each_against_its_own_request(engine: Engine) -> None:
    futures = [engine.execute_model(batch(step), step, non_block=True) for step in range(30)]
    for step, future in enumerate(futures):
        assert_same(expected(batch(step), step), future.result(30))


def test_requests_of_other_kinds_may_come_in_between(engine: Engine) -> None:
    for step in range(10):
        sent = batch(step)
        assert_same(
            expected(sent, named="yes"),
            engine.call("execute_model", (sent,), {"named": "yes"}, reply_ranks=1),
        )
        assert engine.collective_rpc("echo", ([step],)) == [[step]] * 2
        # A batch as a reply, and an outcome that answers no batch.
        assert_same(
            Outcome(["x"], {"x": 0}, [[1]]),
            engine.call("echo", (Outcome(["x"], {"x": 0}, [[1]]),), reply_ranks=0),
        )
        assert_same(sent, engine.call("echo", (sent,), reply_ranks=0))


def test_a_step_that_raises_costs_itself_only(engine: Engine) -> None:
    for step in range(6):
        if step % 2:
            with pytest.raises(RankError, match="as asked"):
                engine.execute_model(batch(step, flag=True))
        else:
            assert_same(expected(batch(step)), engine.execute_model(batch(step)))


def test_a_late_reply_doesnt_disturb_the_next_ones(engine: Engine, tmp_path: Path) -> None:
    late = engine.stats().late_replies
    for step in range(6):
        if step % 2:
            go = tmp_path / f"{step}"
            with pytest.raises(StepTimeout):
                engine.execute_model(batch(step, anything=go), timeout=0.05)
            go.touch()
        else:
            assert_same(expected(batch(step)), engine.execute_model(batch(step)))
    assert engine.stats().late_replies > late


def test_a_request_that_timed_out_half_sent_is_made_up_for(engine: Engine, tmp_path: Path) -> None:
    for step in range(3):
        go = tmp_path / f"{step}"
        busy = engine.execute_model(batch(3 * step, anything=go), non_block=True)
        with pytest.raises(StepTimeout, match="no space"):
            # Larger than the ring, while nobody reads.
            engine.execute_model(batch(3 * step + 1, anything=np.arange(10**5)), timeout=0.1)
        go.touch()
        # Against a step that the ranks have seen.
        echo = engine.call("echo", (Outcome(["r1"], {"r1": 0}, []),), reply_ranks=0)
        assert_same(Outcome(["r1"], {"r1": 0}, []), echo)
        assert_same(expected(batch(3 * step)), busy.result(30))
        sent = batch(3 * step + 2)
        assert_same(expected(sent), engine.execute_model(sent))


class FailsAt:
    """Can't be rebuilt in one process."""

    def __init__(self, pid: int, error: type[BaseException]) -> None:
        self._state = pid, error

    def __reduce__(self) -> Any:
        return FailsAt.make, self._state

    @staticmethod
    def make(pid: int, error: type[BaseException]) -> FailsAt:
        if os.getpid() == pid:
            raise error("as asked")
        return FailsAt(pid, error)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_reply_that_cannot_be_rebuilt_is_its_own_calls_error(
    engine: Engine, error: type[BaseException]
) -> None:
    before, after = batch(1), batch(3)
    assert engine.execute_model(before) == expected(before)
    step = batch(2), FailsAt(os.getpid(), error)
    call = engine.steps.send("execute_model", step, reply_ranks=0)
    later = engine.execute_model(after, non_block=True)
    if error is KeyboardInterrupt:  # it may be a signal's, and is for the thread that reads
        with pytest.raises(KeyboardInterrupt, match="as asked"):
            engine.steps.outcome(call)
    with pytest.raises(DecodeError):
        engine.steps.outcome(call)
    assert later.result() == expected(after)


def test_with_deltas_off_the_same_comes_back() -> None:
    with start(step_deltas=False) as engine:
        for step in range(3):
            assert_same(expected(batch(step)), engine.execute_model(batch(step)))


def test_a_rank_that_has_lost_track_ends_the_run() -> None:
    with start() as engine:
        engine.execute_model(batch(0))
        lost = engine._sending._encoder.step_end
        assert lost is not None
        lost.encode(2, "execute_model", (batch(1),), {}, 0)
        lost.sent()  # which isn't true
        failed = threading.Event()
        engine.on_failure(lambda cause: failed.set())
        with pytest.raises(RankError, match="message 2 came where 1 was due") as caught:
            engine.execute_model(batch(2))
        assert isinstance(caught.value.__cause__, CodecDesync)
        assert failed.wait(20)
        with pytest.raises(RankError, match="message 2 came where 1 was due"):
            engine.execute_model(batch(3))


def test_a_step_that_is_sent_anew_needs_nothing_of_what_came_before() -> None:
    engine_end, late_rank = CODEC.engine_end(), CODEC.rank_end()
    for step in range(3):
        if step == 2:
            engine_end.send_anew()
        message = engine_end.encode(step, "execute_model", (batch(step),), {}, 0)
        engine_end.sent()
    method, args, _, _ = late_rank.decode(2, joined(message))
    assert method == "execute_model"
    assert_same(batch(2), args[0])


def test_an_engine_sends_anew_when_told(engine: Engine) -> None:
    for step in range(4):
        engine.steps.send_anew()
        assert_same(expected(batch(step)), engine.execute_model(batch(step)))
