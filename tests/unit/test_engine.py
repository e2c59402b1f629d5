"""Engine: what a call does, and whose answer it gets."""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers

from mpspmd import Engine
from mpspmd.errors import ConfigError, EncodeError, RankError, StepTimeout, UnknownMethod

pytestmark = pytest.mark.timeout(60)

unless_told_to_spin = pytest.mark.skipif(
    os.environ.get("MPSPMD_WAIT") in ("spin", "yield"), reason="MPSPMD_WAIT asks for a core"
)


class TestCalling:
    def test_a_method_is_called_by_name_and_all_ranks_reply_in_order(self, engine: Engine) -> None:
        assert engine.collective_rpc("rank") == [0, 1]

    def test_a_name_may_be_an_enums_member(self, engine: Engine) -> None:
        assert engine.collective_rpc(workers.Name.RANK) == [0, 1]

    def test_each_rank_knows_its_place(self, engine: Engine) -> None:
        def place(worker: Any) -> tuple[int, ...]:
            ctx = worker.ctx
            return ctx.rank, ctx.local_rank, ctx.world_size, ctx.node_rank, ctx.num_nodes

        assert engine.collective_rpc(place) == [(0, 0, 2, 0, 1), (1, 1, 2, 0, 1)]

    def test_a_class_may_override_call_alone(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "call", None)
        assert engine.collective_rpc("rank") == [0, 1]
        assert engine.execute_model() == (0, ())

    def test_a_forked_child_has_the_outcome_of_a_call_that_is_done(self, engine: Engine) -> None:
        call = engine.steps.send("rank")
        assert engine.collective_rpc("rank") == [0, 1]  # whose replies come later
        if (pid := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                os._exit(0 if engine.steps.outcome(call) == [0, 1] else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert engine.steps.outcome(call) == [0, 1]

    @pytest.mark.parametrize("slow", [0, 1])
    def test_the_order_is_the_ranks_whichever_replies_first(
        self, engine: Engine, slow: int
    ) -> None:
        def reply_late(worker: Any) -> int:
            time.sleep(0.1 if worker.rank() == slow else 0)
            return worker.rank()

        assert engine.collective_rpc(reply_late) == [0, 1]

    def test_arguments_and_keyword_arguments_arrive(self, engine: Engine) -> None:
        before = engine.collective_rpc("add", args=(0,))
        after = engine.collective_rpc("add", args=(2,), kwargs={"times": 3})
        assert [b - a for a, b in zip(before, after, strict=True)] == [6, 6]

    def test_a_lambda_that_closes_over_a_value_runs_on_every_rank(self, engine: Engine) -> None:
        base = 40
        assert engine.collective_rpc(lambda worker: base + worker.rank()) == [40, 41]

    def test_a_callable_gets_the_worker_and_the_arguments(self, engine: Engine) -> None:
        def describe(worker: Any, name: str, *, suffix: str) -> str:
            return f"{name}{worker.rank()}{suffix}"

        replies = engine.collective_rpc(describe, args=("r",), kwargs={"suffix": "!"})
        assert replies == ["r0!", "r1!"]

    def test_a_method_of_the_class_is_a_callable_too(self, engine: Engine) -> None:
        assert engine.collective_rpc(workers.Calculator.rank) == [0, 1]

    def test_execute_model_is_answered_by_rank_0_unless_told_otherwise(
        self, engine: Engine
    ) -> None:
        assert engine.execute_model("a", 1) == (0, ("a", 1))
        assert engine.execute_model("a", reply_rank=1) == (1, ("a",))

    def test_execute_model_takes_arguments_by_name(self, engine: Engine) -> None:
        assert engine.execute_model(1, temperature=0.5) == (0, (1, {"temperature": 0.5}))
        future = engine.execute_model(top=2, non_block=True, reply_rank=1)
        assert future.result() == (1, ({"top": 2},))

    def test_the_rank_that_replies_can_be_chosen(self, engine: Engine) -> None:
        assert engine.call("rank", reply_ranks=1) == 1
        assert engine.call("rank", reply_ranks="all") == [0, 1]

    def test_without_reply_ranks_the_method_still_runs_on_every_rank(self, engine: Engine) -> None:
        before = engine.collective_rpc("add", args=(0,))
        assert engine.call("add", (5,), reply_ranks=None) is None
        after = engine.collective_rpc("add", args=(0,))
        assert [b - a for a, b in zip(before, after, strict=True)] == [5, 5]

    @pytest.mark.parametrize("ranks", [2, -1, "some", 0.5])
    def test_an_impossible_reply_rank_is_refused_with_the_limit(
        self, engine: Engine, ranks: Any
    ) -> None:
        with pytest.raises(ConfigError, match="from 0 to 1"):
            engine.call("rank", reply_ranks=ranks)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"method": None}, "method=None"),
            ({"args": "name"}, r"args is of str: .*\(argument,\)"),
            ({"kwargs": "name"}, "kwargs is of str"),
            ({"timeout": "1"}, "timeout='1'"),
            ({"timeout": 10**400}, "timeout=1000"),
            ({"timeout": math.nan}, "timeout=nan"),
        ],
    )
    def test_what_makes_no_call_is_refused_and_no_rank_sees_it(
        self, engine: Engine, given: Any, told: str
    ) -> None:
        with pytest.raises(ConfigError, match=told):
            engine.call(**({"method": "rank"} | given))
        assert engine.collective_rpc("rank") == [0, 1]

    def test_a_callable_that_is_none_on_the_ranks_fails_and_the_engine_goes_on(
        self, engine: Engine
    ) -> None:
        with pytest.raises(RankError, match="must be callable"):
            engine.collective_rpc(workers.OnlyHere())
        assert engine.collective_rpc("rank") == [0, 1]

    def test_a_reply_is_the_callers_own_to_change(self, engine: Engine) -> None:
        for array in engine.collective_rpc("echo", args=(np.zeros(5_000),)):
            array += 1
            assert array.sum() == 5_000

    def test_many_requests_are_in_flight_and_resolve_in_order(self, engine: Engine) -> None:
        futures = [engine.collective_rpc("echo", args=(i,), non_block=True) for i in range(300)]
        assert [future.result() for future in futures] == [[i, i] for i in range(300)]

    def test_hundreds_of_calls_from_eight_threads_each_get_their_own_answer(
        self, engine: Engine
    ) -> None:
        def ask(thread: int) -> list[Any]:
            return [
                (engine.collective_rpc("echo", args=((thread, i),)), (thread, i)) for i in range(50)
            ]

        with ThreadPoolExecutor(8) as pool:
            for answers in pool.map(ask, range(8)):
                assert all(replies == [sent, sent] for replies, sent in answers)

    def test_an_argument_that_cannot_be_sent_is_refused_and_no_rank_sees_it(
        self, engine: Engine
    ) -> None:
        def received() -> list[int]:
            engine.collective_rpc("rank")
            return [rank.counters["requests"] for rank in engine.stats().ranks]

        before = received()
        with pytest.raises(EncodeError, match="lock"):
            engine.collective_rpc("echo", args=(threading.Lock(),))
        assert received() == [count + 1 for count in before]


class TestSpmd:
    def test_every_rank_has_received_the_same_bytes(self, engine: Engine) -> None:
        engine.execute_model(np.arange(10_000))
        engine.call("rank", reply_ranks=1)
        engine.call("echo", (bytes(9 << 20),), reply_ranks=None)
        first = engine.collective_rpc("digest")
        assert first[0] is not None
        assert first[0] == first[1]
        engine.call("rank", reply_ranks=None)
        second = engine.collective_rpc("digest")
        assert second[0] == second[1] != first[0]

    def test_no_rank_is_in_the_engines_process_and_no_two_share_one(self, engine: Engine) -> None:
        processes = engine.collective_rpc("process")
        pids = [pid for pid, _ in processes]
        assert pids == engine.pids
        assert len({os.getpid(), *pids}) == 3
        assert {parent for _, parent in processes} == {os.getpid()}

    def test_the_status_page_tells_what_each_rank_does(
        self, engine: Engine, eventually: Any, go: Path
    ) -> None:
        page = engine._channel.status
        assert page.engine_pid == os.getpid()
        engine.collective_rpc("rank")  # read whatever earlier tests have left
        eventually(
            lambda: page.line(1).snapshot()["phase"] == "waiting", "rank 1 has nothing to do"
        )
        before = page.line(1).snapshot()
        began = time.monotonic()
        future = engine.collective_rpc("wait_for", args=(str(go),), non_block=True)
        eventually(lambda: page.line(1).snapshot()["phase"] == "running", "rank 1 runs the method")
        during = page.line(1).snapshot()
        assert (during["method"], during["pid"]) == ("wait_for", engine.pids[1])
        assert during["step"] > before["step"]
        assert began <= during["since"] <= time.monotonic()
        go.touch()
        future.result()
        eventually(lambda: page.line(1).snapshot()["phase"] == "waiting", "rank 1 waits")
        after = page.line(1).snapshot()
        assert after["requests"] == before["requests"] + 1
        assert after["replies"] == before["replies"] + 1
        assert after["bytes_in"] > before["bytes_in"]
        assert after["bytes_out"] > before["bytes_out"]

    def test_a_methods_name_may_be_long_and_in_any_language(self, go: Path) -> None:
        with Engine(workers.Calculator, world_size=1) as engine:
            with pytest.raises(UnknownMethod):
                engine.collective_rpc("ü" * 60)
            with pytest.raises(StepTimeout, match="üüü"):
                engine.collective_rpc(_named("ü" * 60), (str(go),), timeout=0.2)
            go.touch()
            assert engine.collective_rpc("rank") == [0]


def _named(name: str) -> Any:
    def slow(worker: Any, file: str) -> None:
        worker.wait_for(file)

    slow.__qualname__ = name
    return slow


class TestDeadlines:
    def test_a_late_reply_is_never_the_next_calls_answer(self, engine: Engine, go: Path) -> None:
        engine.collective_rpc("rank")  # read whatever earlier tests have left
        late = engine.stats().late_replies
        with pytest.raises(StepTimeout):
            engine.collective_rpc("wait_for", args=(str(go), "late"), timeout=0.05)
        go.touch()
        assert engine.collective_rpc("echo", args=("own",)) == ["own", "own"]
        assert engine.stats().late_replies == late + 2

    def test_a_timeout_names_the_method_and_what_each_rank_does(
        self, eventually: Any, go: Path
    ) -> None:
        with Engine(workers.Calculator, world_size=2) as engine:
            # No thread reads for this engine: the call ends when the test asks for its outcome.
            future = engine.collective_rpc(
                "wait_for", (str(go), None, 1), timeout=0.1, non_block=True
            )
            lines = [engine._channel.status.line(rank) for rank in (0, 1)]
            eventually(
                lambda: (
                    [(now["phase"], now["method"]) for now in (line.snapshot() for line in lines)]
                    == [("waiting", "wait_for"), ("running", "wait_for")]
                ),
                "rank 0 is done, and rank 1 isn't",
            )
            with pytest.raises(StepTimeout, match=r"wait_for \(step \d+\) timed out") as caught:
                future.result()
            go.touch()
        assert re.search(r"rank 0 \(pid \d+\): waiting for a request", str(caught.value))
        assert re.search(r"rank 1 \(pid \d+\): running wait_for", str(caught.value))
        assert isinstance(caught.value, TimeoutError)

    def test_a_deadline_holds_while_there_is_no_space_for_the_request(
        self, engine: Engine, go: Path
    ) -> None:
        engine.call("wait_for", (str(go),), reply_ranks=None)
        with pytest.raises(StepTimeout, match="no space"):
            engine.collective_rpc("size", args=(bytes(16 << 20),), timeout=0.1)
        go.touch()
        assert engine.collective_rpc("echo", args=("own",)) == ["own", "own"]

    def test_a_deadline_holds_while_another_thread_waits_for_space(
        self, engine: Engine, eventually: Any, go: Path
    ) -> None:
        engine.call("wait_for", (str(go),), reply_ranks=None)
        with ThreadPoolExecutor(1) as pool:
            large = pool.submit(engine.collective_rpc, "size", (bytes(16 << 20),))
            eventually(lambda: engine._reader.sender_waits, "the other thread waits for space")
            with pytest.raises(StepTimeout, match="another thread's request"):
                engine.collective_rpc("rank", timeout=0.1)
            assert not large.done()
            go.touch()
            assert large.result() == [16 << 20] * 2

    @unless_told_to_spin
    def test_waiting_for_space_burns_no_processor_time(self, engine: Engine) -> None:
        seconds = []
        for _ in range(2):
            engine.call("sleep", (1.0,), reply_ranks=None)
            began = time.process_time()
            assert engine.collective_rpc("size", args=(bytes(16 << 20),)) == [16 << 20] * 2
            seconds.append(time.process_time() - began)
        assert max(seconds) < 0.6

    @unless_told_to_spin
    def test_waiting_for_replies_burns_no_processor_time(self, engine: Engine) -> None:
        began = time.process_time()
        engine.collective_rpc("sleep", args=(1.0,))
        assert time.process_time() - began < 0.5

    @unless_told_to_spin
    def test_a_thread_that_reads_for_futures_burns_none_in_a_long_step(
        self, engine: Engine
    ) -> None:
        for _ in range(6):  # it learns that this method is a long step
            engine.collective_rpc("sleep", args=(0.2,))
        began = time.process_time()
        future = engine.collective_rpc("sleep", args=(2.0,), non_block=True)
        future.add_done_callback(lambda future: None)
        time.sleep(1.8)
        assert future.result() == [None, None]
        assert time.process_time() - began < 1.0
