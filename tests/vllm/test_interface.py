"""What vLLM's own backend can be asked can be asked of ours, and classes derived from ours are ours."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from scripted_steps import start

pytest.importorskip("vllm")

from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from mpspmd.errors import ConfigError, EngineClosed, RankError
from mpspmd.vllm.compat import EXECUTOR, noted_engines
from mpspmd.vllm.executor import MpSpmdExecutor

HERE = Path(__file__).parent

NOT_OURS = {
    "get_response_mqs": "there are no message queues",
    "start_worker_monitor": "for the other machines of a run over several; ranks are always watched",
    "__init__": "`monitor_workers` is for those other machines too",
}


def _methods(kind: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(
        kind, lambda member: inspect.isfunction(member) or inspect.ismethod(member)
    )
    return {
        name: method for name, method in found if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize("kind", [Executor, MultiprocExecutor])
def test_every_method_of_vllms_own_executors_takes_the_same_arguments(kind: type) -> None:
    for name, theirs in _methods(kind).items():
        if name in NOT_OURS:
            continue
        assert hasattr(MpSpmdExecutor, name), f"{name} is missing"
        expected = list(inspect.signature(theirs).parameters.values())
        given = list(inspect.signature(getattr(MpSpmdExecutor, name)).parameters.values())
        described = [(p.name, p.kind, p.default) for p in expected]
        assert [(p.name, p.kind, p.default) for p in given][: len(expected)] == described, name


class Own(MpSpmdExecutor):
    """As executors of others are: it counts the calls, and passes its arguments on by their position."""

    def _init_executor(self) -> None:
        self.calls: list[Any] = []
        super()._init_executor()

    def collective_rpc(  # type: ignore[override]
        self,
        method: Any,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
        unique_reply_rank: int | None = None,
        kv_output_aggregator: Any = None,
        ec_output_aggregator: Any = None,
    ) -> Any:
        self.calls.append(method)
        aggregators = (kv_output_aggregator, ec_output_aggregator)
        return super().collective_rpc(
            method, timeout, args, kwargs, non_block, unique_reply_rank, *aggregators
        )


class OwnWithoutPipelines(MpSpmdExecutor):
    supports_pp = False


OWN_PATH = f"{__name__}.Own"


def _start(model: Path) -> Any:
    def change(config: Any) -> None:
        section = {"shutdown_timeout_s": 0.5, "wait": "spin", "answer_early": False}
        config.additional_config = {"mpspmd": section}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSPMD_WAIT", "park")
        return start(model, asynchronous=False, change=change, executor_class=Own)


@pytest.fixture(scope="module")
def executors() -> Iterator[list[Any]]:
    """The one that tests share, if it has been started."""
    made: list[Any] = []
    yield made
    for executor in made:
        executor.shutdown()


@pytest.fixture
def executor(executors: list[Any], model: Path) -> Any:
    if not executors:
        executors.append(_start(model))
    return executors[0]


@pytest.fixture
def ending_executor(executor: Any, executors: list[Any]) -> Any:
    """For a test that shuts it down: the next test starts another one."""
    executors.clear()
    return executor


def test_an_executor_of_a_derived_class_passes_for_mp_and_sees_every_call(executor: Any) -> None:
    assert executor.parallel_config.distributed_executor_backend == "mp"
    backends = executor.collective_rpc(
        lambda worker: worker.vllm_config.parallel_config.distributed_executor_backend
    )
    assert backends == ["mp", "mp"]
    executor.calls.clear()
    executor.check_health()
    executor.reset_mm_cache()
    assert executor.calls == ["check_health", "reset_mm_cache"]


def test_an_executor_has_the_settings_of_the_additional_configuration(executor: Any) -> None:
    config = executor._engine.config
    assert (config.shutdown_timeout_s, config.answer_early) == (0.5, False)
    assert config.wait == "park", "a variable beats it"
    assert not executor._steps._answers_early


def test_the_reply_of_one_rank_can_be_asked_for(executor: Any) -> None:
    ask = lambda worker, plus: worker.ctx.rank + plus  # noqa: E731
    assert executor.collective_rpc(ask, args=(5,)) == [5, 6]
    assert executor.collective_rpc(ask, args=(5,), unique_reply_rank=0) == 5
    assert executor.collective_rpc(ask, 30, (5,), None, False, 1) == 6
    future = executor.collective_rpc(ask, args=(5,), unique_reply_rank=1, non_block=True)
    assert future.result() == 6
    with pytest.raises(ConfigError, match="from 0 to 1"):
        executor.collective_rpc(ask, args=(5,), unique_reply_rank=2)


class Sum:
    """An aggregator as vLLM's: it counts across calls, and so needs their order."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def aggregate(self, outputs: list[list[int]], output_rank: int) -> list[int]:
        self.seen.append([output[0] for output in outputs])
        return [*outputs[output_rank], sum(output[0] for output in outputs)]


def test_an_aggregator_gets_all_replies_in_the_order_of_the_calls(executor: Any) -> None:
    ask = lambda worker, value: [value + worker.ctx.rank]  # noqa: E731
    kv, ec = Sum(), Sum()
    first = executor.collective_rpc(
        ask, args=(1,), non_block=True, unique_reply_rank=1, kv_output_aggregator=kv
    )
    second = executor.collective_rpc(
        ask, args=(10,), kv_output_aggregator=kv, ec_output_aggregator=ec
    )
    assert (second, first.result()) == ([10, 21], [2, 3])
    assert (kv.seen, ec.seen) == ([[1, 2], [10, 11]], [[10, 11]])

    def fail(worker: Any) -> None:
        raise ValueError("no")

    with pytest.raises(RankError, match="ValueError"):
        executor.collective_rpc(fail, kv_output_aggregator=kv)


def test_workers_that_do_not_end_in_time_are_killed_and_a_second_shutdown_does_nothing(
    ending_executor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    executor = ending_executor

    def never_end(worker: Any) -> int:
        import os
        import time

        def shutdown() -> None:
            while True:
                with contextlib.suppress(SystemExit):
                    time.sleep(1)

        worker.worker.shutdown = shutdown
        return os.getpid()

    pids = executor.collective_rpc(never_end)
    executor.shutdown()
    assert not any(map(psutil.pid_exists, pids))
    assert f"ranks had to be killed: pids {pids}" in caplog.text
    executor.shutdown()
    with pytest.raises(EngineClosed):
        executor.check_health()


# Classes derived from ours.


def _class_for(backend: Any) -> type:
    parallel = SimpleNamespace(distributed_executor_backend=backend, data_parallel_size_local=3)
    found: type = Executor.get_class(SimpleNamespace(parallel_config=parallel))
    assert noted_engines(parallel) == 3, "it isn't treated as ours"
    return found


@pytest.mark.parametrize("backend", [Own, OWN_PATH, EXECUTOR, "mp-spmd"])
def test_an_own_executor_is_found_and_treated_as_ours(backend: Any) -> None:
    own = backend in (Own, OWN_PATH)
    assert _class_for(backend).__name__ == ("Own" if own else "MpSpmdExecutor")
    assert _class_for(backend).supports_async_scheduling()


class NoExecutor: ...


@pytest.mark.parametrize("backend", [NoExecutor, f"{__name__}.NoExecutor"])
def test_a_class_that_is_no_executor_is_refused_with_its_name(backend: Any) -> None:
    with pytest.raises(TypeError, match=r"subclass of Executor.*NoExecutor"):
        _class_for(backend)


def _check_pipelines(backend: Any) -> None:
    from vllm.engine.arg_utils import EngineArgs

    arguments = SimpleNamespace(distributed_executor_backend=backend, pipeline_parallel_size=2)
    EngineArgs._check_feature_supported(arguments)
    assert arguments.distributed_executor_backend is backend


@pytest.mark.parametrize("backend", ["mp-spmd", EXECUTOR, MpSpmdExecutor, Own, OWN_PATH])
def test_an_own_executor_may_have_pipelines(backend: Any) -> None:
    _check_pipelines(backend)


@pytest.mark.parametrize(
    "backend", [OwnWithoutPipelines, f"{__name__}.OwnWithoutPipelines", "nowhere.at.All", "unknown"]
)
def test_others_may_not(backend: Any) -> None:
    with pytest.raises(NotImplementedError, match="Pipeline Parallelism"):
        _check_pipelines(backend)


@pytest.mark.slow
def test_an_executor_of_the_main_program_runs_extends_workers_and_tells_why_it_failed(
    model: Path, tmp_path: Path
) -> None:
    import json

    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, HERE / "own_executor.py", model, out],
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    seen = json.loads(out.read_text())
    assert seen["versions"] == [20, 21]
    assert seen["error"]["type"] == "EngineDeadError"
    assert seen["error"]["causes"][0]["type"] == "RankDied"
