"""What a user of the library writes. mypy --strict must be content with it; nobody runs it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import Future
from typing import Any, assert_type

import mpspmd
from mpspmd import StepFuture
from mpspmd.errors import MpSpmdError, RankDied, RankError, StartupError, StepTimeout


class Model(mpspmd.Worker):
    def __init__(self, ctx: mpspmd.RankContext, path: str, *, layers: int = 2) -> None:
        super().__init__(ctx)
        self.path = path
        self.where = str(ctx.device)
        assert_type(ctx.rank, int)
        assert_type(ctx.node_rank, int)
        assert_type(ctx.request_digest(), str | None)

    def execute_model(self, batch: list[int]) -> list[int]:
        return [token + self.ctx.rank for token in batch]

    def add_lora(self, name: str) -> bool:
        return bool(name)

    def finish_reply(self, result: Any) -> Any:
        return result

    def shutdown(self) -> None:
        print("bye from", self.ctx.rank, "of", self.ctx.world_size)


def serve(path: str) -> list[int]:
    config = mpspmd.RuntimeConfig(reply_ring_bytes=1 << 20, start_timeout_s=60)
    assert_type(config.start_timeout_s, float | None)
    with mpspmd.Engine(
        Model, world_size=2, args=(path,), kwargs={"layers": 4}, config=config
    ) as engine:
        engine.on_failure(lambda cause: print("failed:", cause))
        tokens: list[int] = engine.execute_model([1, 2, 3])
        future: Future[list[int]] = engine.execute_model(tokens, non_block=True)
        loras: list[bool] = engine.collective_rpc("add_lora", args=("name",), timeout=5)
        ranks: list[int] = engine.collective_rpc(lambda worker: worker.ctx.rank)
        one: bool = engine.call("add_lora", ("name",), reply_ranks=1)
        engine.call("add_lora", kwargs={"name": "x"}, reply_ranks=None)
        assert one or all(loras) or ranks
        assert_type(engine.pids, list[int])
        assert_type(engine.world_size, int)
        assert_type(engine.stats().ranks[0].counters, dict[str, int])
        assert_type(engine.stats().ring_fill, float)
        return future.result(timeout=1)


def rank_of(worker: Model) -> int:
    return worker.ctx.rank


def calls(engine: mpspmd.Engine, non_block: bool) -> None:
    assert_type(engine.execute_model([1], temperature=0.5, non_block=False), Any)
    assert_type(engine.execute_model([1], non_block=True), StepFuture[Any])
    assert_type(engine.execute_model([1], non_block=non_block), Any)
    assert_type(engine.collective_rpc("add_lora"), list[Any])
    assert_type(engine.collective_rpc("add_lora", non_block=True), StepFuture[list[Any]])
    assert_type(engine.collective_rpc(rank_of), list[int])
    assert_type(engine.collective_rpc(rank_of, non_block=True), StepFuture[list[int]])
    assert_type(engine.collective_rpc(rank_of, non_block=True).result(timeout=1), list[int])
    assert_type(engine.call("add_lora", reply_ranks=1, non_block=True), StepFuture[Any])
    done, _ = concurrent.futures.wait([engine.collective_rpc(rank_of, non_block=True)])
    for future in concurrent.futures.as_completed(done):
        assert_type(future.result(), list[int])


def serve_patiently(path: str) -> list[int]:
    try:
        return serve(path)
    except RankDied as died:
        print(died.rank, died.pid, died.method, died.reason)
    except RankError as error:
        print(error.rank, error.exception, error.remote_traceback, error.__cause__)
    except StartupError as error:
        print({rank: cause.upper() for rank, cause in error.causes.items()})
    except StepTimeout as error:
        raise TimeoutError from error
    except MpSpmdError:
        raise
    return []


async def step(engine: mpspmd.Engine) -> int:
    token: int = await engine.execute_model_async([1], timeout=5)
    await engine.collective_rpc_async("add_lora", kwargs={"name": "x"})
    await engine.call_async("add_lora", ("x",), reply_ranks=1)
    assert_type(await engine.collective_rpc_async(rank_of), list[int])
    ranks = await asyncio.wrap_future(engine.collective_rpc(rank_of, non_block=True))
    assert_type(ranks, list[int])
    return token


def explain(error: mpspmd.MpSpmdError) -> None:
    if isinstance(error, mpspmd.StepTimeout) and error.report is not None:
        assert_type(error.report, mpspmd.StallReport)
        assert_type(error.report.ranks[0], mpspmd.RankReport)
        assert_type(error.report.suspects, tuple[int, ...])
    if isinstance(error, concurrent.futures.BrokenExecutor | mpspmd.errors.StartupError):
        raise error


assert_type(mpspmd.run(Model, lambda engine: engine.world_size, args=("path",)), int)

request = mpspmd.ExecuteModelRequest(1, "execute_model", ([1, 2],), reply_ranks="all")
assert_type(request.step_id, int)
assert_type(request.is_answered_by(0), bool)
