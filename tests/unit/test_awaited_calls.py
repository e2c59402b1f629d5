"""Calls from asyncio: in order, cancellable, and the event loop goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import workers

from mpspmd import Engine
from mpspmd.errors import EngineClosed, RankError, StepTimeout

pytestmark = pytest.mark.timeout(60)


def test_a_hundred_concurrent_calls_reach_the_ranks_in_order(engine: Engine) -> None:
    async def main() -> None:
        before = engine.stats().steps
        totals = await asyncio.gather(
            *(engine.collective_rpc_async("add", args=(1,)) for _ in range(100))
        )
        # Each call sees what all before it have added, and nothing of those after it.
        first = totals[0][0]
        assert [total[0] for total in totals] == list(range(first, first + 100))
        assert engine.stats().steps == before + 100
        answers = await asyncio.gather(*(engine.execute_model_async(i) for i in range(100)))
        assert answers == [(0, (i,)) for i in range(100)]

    asyncio.run(main())


def test_the_event_loop_goes_on_while_ranks_are_busy_and_the_ring_is_full(
    engine: Engine, go: Path
) -> None:
    async def release() -> None:
        """The ranks wait for what only the event loop does."""
        while not engine._reader.sender_waits:
            await asyncio.sleep(0.01)
        go.touch()

    async def main() -> list[Any]:
        slow = engine.collective_rpc_async("wait_for", args=(str(go),))
        # More than the ring holds: sending has to wait for the ranks.
        large = (engine.collective_rpc_async("size", args=(bytes(3 << 20),)) for _ in range(4))
        return await asyncio.gather(slow, *large, release())

    assert asyncio.run(main()) == [[None, None], *[[3 << 20] * 2] * 4, None]


def test_a_cancelled_call_disturbs_no_other(engine: Engine, go: Path) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(engine.collective_rpc_async("wait_for", args=(str(go),)))
        queued = [
            asyncio.create_task(engine.collective_rpc_async("echo", args=(i,))) for i in range(10)
        ]
        await asyncio.sleep(0.1)
        waiting.cancel()
        queued[3].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.touch()
        replies = await asyncio.gather(*queued, return_exceptions=True)
        assert isinstance(replies.pop(3), asyncio.CancelledError)
        assert replies == [[i, i] for i in range(10) if i != 3]

    asyncio.run(main())


def test_errors_and_deadlines_arrive_where_the_call_is_awaited(engine: Engine, go: Path) -> None:
    async def main() -> None:
        with pytest.raises(RankError, match="no luck"):
            await engine.collective_rpc_async("fail", args=("no luck",))
        with pytest.raises(StepTimeout):
            await engine.collective_rpc_async("wait_for", args=(str(go),), timeout=0.05)
        go.touch()
        assert await engine.execute_model_async("next", reply_rank=1) == (1, ("next",))

    asyncio.run(main())


def test_awaited_calls_take_what_plain_calls_take(engine: Engine) -> None:
    async def main() -> None:
        assert await engine.call_async("rank", reply_ranks=1) == 1
        assert await engine.call_async("rank", reply_ranks=None) is None
        assert await engine.call_async("rank") == [0, 1]
        assert await engine.call_async("echo", kwargs={"value": 2}, reply_ranks=0) == 2
        assert await engine.execute_model_async(1, two=2) == (0, (1, {"two": 2}))

    asyncio.run(main())


def test_awaited_and_plain_calls_may_be_mixed(engine: Engine) -> None:
    async def main() -> None:
        awaited = asyncio.gather(*(engine.execute_model_async(i) for i in range(20)))
        loop = asyncio.get_running_loop()
        plain = await loop.run_in_executor(None, engine.collective_rpc, "rank")
        assert plain == [0, 1]
        assert await awaited == [(0, (i,)) for i in range(20)]

    asyncio.run(main())


def test_calls_that_wait_end_with_the_engine(go: Path) -> None:
    async def main() -> None:
        with Engine(workers.Calculator, world_size=1) as engine:
            calls = [
                asyncio.create_task(engine.collective_rpc_async("wait_for", args=(str(go),)))
                for _ in range(3)
            ]
            await asyncio.sleep(0.1)
            engine.shutdown(timeout=0)
        calls.append(asyncio.create_task(engine.execute_model_async()))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineClosed] * 4

    asyncio.run(main())


_LEAVES = """
import asyncio, mpspmd, workers

async def main():
    calls = [asyncio.create_task(engine.collective_rpc_async("sleep", args=(600,)))]
    calls += [asyncio.create_task(engine.execute_model_async(bytes(60_000))) for _ in range(3)]
    while not engine._reader.sender_waits:
        await asyncio.sleep(0.01)

engine = mpspmd.Engine(workers.Calculator, world_size=1)
asyncio.run(main())
"""


def test_a_program_ends_while_a_request_of_its_waits_for_space() -> None:
    small = {"MPSPMD_REQUEST_RING_BYTES": "65536", "MPSPMD_SHUTDOWN_TIMEOUT_S": "0.1"}
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | small | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", _LEAVES], env=environment, timeout=30)
    assert done.returncode == 0
