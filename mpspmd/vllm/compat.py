"""All that we change in vLLM, all of its private parts that we use, and where its versions differ for us.

What we change, or use though it is private:

| vLLM's | what we do, and where | why | versions |
| --- | --- | --- | --- |
| `Executor.get_class` | wrap, `know_backend` | it doesn't know the name `mp-spmd`, and it is the last call in the front end before an engine starts | all |
| `EngineArgs._check_feature_supported` | wrap, `know_backend` | it refuses pipeline parallelism by name | all |
| `ParallelConfig.__post_init__` | wrap, `node_compat.py` | it refuses several nodes by name | all |
| `MultiprocExecutor` in `entrypoints/cli/serve.py` | wrap, `node_compat.py` | `run_headless` makes it on all nodes but the head, whatever the backend | all |
| `EngineDeadError`, `wait_for_engine_startup`, `get_output`, `get_output_async` | wrap, `chain_causes` | they raise errors without their cause | all |
| `ParallelConfig.distributed_executor_backend` | set in EngineCore, `pass_for_mp` | vLLM compares it with "mp" in many places | all |
| `ParallelConfig` | an attribute of ours, `note_engines` | vLLM doesn't tell an engine how many there are | all |
| the name of EngineCore's process | read, `is_engine_core` | our executor may also run in the user's process | all |
| variables of EngineCore's signal handler | read, `engine_core_state` | nothing else says whether EngineCore is made, and whether it has been told to end | all; before 0.32 only whether it is made |
| `OMPProcessManager._get_autobind_cpu_ids` | overridden, `cpu_binding.py` | it refuses two ranks on one NUMA node, and gives all engines the same cores | all |
| `torch.ops._C.shm_*` in a rank | a kernel before each, `collectives.py` | nothing else says how long a rank waits in a collective, and which was its last | all |
| `multiprocessing.resource_tracker` in a rank | replaced, `track_files` | it warns of what killed ranks have left, which our janitor removes | all |

Where versions differ. All else that we use is alike in every version of `TESTED`:

| since | what | where it matters |
| --- | --- | --- |
| 0.32 | `profile(delay_iterations=, max_iterations=)` | nowhere: vLLM's own `Executor.profile` |
| 0.32 | `SchedulerOutput` without `block_table_updates` | nowhere: the codec takes the class as it is |
| 0.32 | EngineCore handles signals before it is made | `engine_core_state` |
| 0.33 | a watchdog in every process: `watchdog_config` | `has_watchdog`, `watchdog.py` |
| 0.33 | the outputs of a failed step are kept | `defers_outputs`, `transferred_by`, `salvage.py` |
| 0.33 | `SchedulerOutput.encoder_input_updates`, `skip_drafts` | nowhere: as above |
| 0.33 | `set_kv_cache_layout` takes two arguments | nowhere: vLLM's own method, which calls ours |
| 0.33 | a worker extension is told of its beginning and end | nowhere: vLLM's own wrapper does it |

We look for each part in the installed vLLM, because a build may lie between two releases. Where a part is
missing, we log one line that says what won't work (`doing_without`), and vLLM works without us.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

import contextlib
import enum
import functools
import importlib.util
import inspect
import logging
import multiprocessing
import re
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from types import FunctionType
from typing import Any

import msgspec

from mpspmd.vllm.leftovers import file_of

logger = logging.getLogger(__name__)

TESTED = ("0.31", "0.32", "0.33")
"""Releases with which the tests have been run. `pyproject.toml` says the same."""

BACKEND = "mp-spmd"
EXECUTOR = "mpspmd.vllm.executor.MpSpmdExecutor"

_WRAPPED = "_mpspmd_wrapped"
_ENGINES = "_mpspmd_engines"


def untested(version: str) -> str | None:
    """What to tell the user of a version that isn't in TESTED."""
    release = re.match(r"\d+\.\d+", version)
    if release is not None and release.group() in TESTED:
        return None
    return (
        f"mp-spmd has been tested with vLLM {TESTED[0]} to {TESTED[-1]}, and this is {version}: "
        "it may work; if it doesn't, use --distributed-executor-backend mp"
    )


@contextlib.contextmanager
def doing_without(consequence: str) -> Iterator[None]:
    """If the block raises, this version of vLLM lacks what it needs: one line of the log says so."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        logger.warning("mpspmd doesn't know this version of vLLM (%s): %s", reason, consequence)


# The name of the backend.


def know_backend(prepare: Callable[[Any], None]) -> None:
    """vLLM takes `mp-spmd` for the name of our executor, and lets it have pipelines. Any number of times.

    vLLM asks for an executor's class when it is about to start an engine. If the class is ours, `prepare`
    is called with the ParallelConfig.
    """
    with doing_without(f"{BACKEND!r} can't be used as distributed_executor_backend"):
        from vllm.utils.import_utils import resolve_obj_by_qualname
        from vllm.v1.executor.abstract import Executor

        def get_class(original: Callable[..., Any], vllm_config: Any) -> Any:
            parallel_config = vllm_config.parallel_config
            if parallel_config.distributed_executor_backend == BACKEND:
                chosen = resolve_obj_by_qualname(EXECUTOR)
            else:
                chosen = original(vllm_config)
            if is_ours(chosen):
                prepare(parallel_config)
            return chosen

        wrap((Executor, "get_class", get_class))
    with doing_without(f"{BACKEND!r} can't be used with pipeline parallelism"):
        from vllm.engine.arg_utils import EngineArgs

        wrap((EngineArgs, "_check_feature_supported", _check_as_mp))


def is_ours(executor: Any) -> bool:
    """Whether it is MpSpmdExecutor or a class derived from it."""
    return isinstance(executor, type) and getattr(executor, "runs_on_mpspmd", False)


def _check_as_mp(original: Callable[..., Any], engine_args: Any, *args: Any, **kwargs: Any) -> Any:
    if not means_ours(engine_args.distributed_executor_backend):
        return original(engine_args, *args, **kwargs)
    with checked_as_mp(engine_args):
        return original(engine_args, *args, **kwargs)


@contextlib.contextmanager
def checked_as_mp(config: Any) -> Iterator[None]:
    """Within, its backend is "mp". `config` is an EngineArgs or a ParallelConfig."""
    backend = config.distributed_executor_backend
    config.distributed_executor_backend = "mp"
    try:
        yield
    finally:
        config.distributed_executor_backend = backend


def means_ours(backend: Any) -> bool:
    """Whether a backend, as vLLM's user gives it, is our executor: by its name, its path or its class.

    A class derived from ours that can't have pipelines doesn't count: vLLM checks it itself.
    """
    if backend == BACKEND:
        return True
    if isinstance(backend, str) and "." in backend:
        from vllm.utils.import_utils import resolve_obj_by_qualname

        # vLLM itself will say what is wrong with a path.
        with contextlib.suppress(Exception):
            backend = resolve_obj_by_qualname(backend)
    return is_ours(backend) and bool(backend.supports_pp)


def pass_for_mp(parallel_config: Any) -> None:
    """In EngineCore: where vLLM compares the backend's name with "mp", our executor does what `mp` does."""
    parallel_config.distributed_executor_backend = "mp"


# The front end's errors.


def chain_causes(latest: Callable[[], BaseException | None]) -> None:
    """In the front end: vLLM's errors get the latest cause as their `__cause__`. Any number of times."""
    with doing_without("its errors won't name their cause; the log does"):
        from vllm.v1.engine import core_client, utils
        from vllm.v1.engine.exceptions import EngineDeadError

        def make(original: Callable[..., None], error: Any, *args: Any, **kwargs: Any) -> None:
            original(error, *args, **kwargs)
            error.__cause__ = latest()

        def start(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with _chained(RuntimeError, latest):
                return original(*args, **kwargs)

        # These two raise the error `from None`.
        def get(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with _chained(EngineDeadError, latest):
                return original(*args, **kwargs)

        async def get_async(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with _chained(EngineDeadError, latest):
                return await original(*args, **kwargs)

        wrap(
            (EngineDeadError, "__init__", make),
            (utils, "wait_for_engine_startup", start),
            (core_client.SyncMPClient, "get_output", get),
            (core_client.AsyncMPClient, "get_output_async", get_async),
        )


@contextlib.contextmanager
def _chained(kind: type[Exception], latest: Callable[[], BaseException | None]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        error.__cause__ = error.__cause__ or latest()
        raise


def wrap(*changes: tuple[Any, str, Callable[..., Any]]) -> None:
    """`(owner, name, wrapper)`: puts a call of `wrapper(original, …)` in the place of each function, once.

    AttributeError, and nothing is changed, if one of them doesn't exist.
    """
    originals = [getattr(owner, name) for owner, name, _ in changes]
    for (owner, name, wrapper), original in zip(changes, originals, strict=True):
        if hasattr(original, _WRAPPED):
            continue
        call = _calling(wrapper, original)
        is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
        setattr(owner, name, staticmethod(call) if is_static else call)


def _calling(wrapper: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(call, _WRAPPED, True)
    return call


# EngineCore's process.


class CoreState(enum.Enum):
    """What EngineCore is doing, as its signal handler tells."""

    BEING_MADE = enum.auto()
    MADE = enum.auto()
    UNKNOWN = enum.auto()


def is_engine_core() -> bool:
    """Whether this process is one that vLLM has started for an EngineCore."""
    return multiprocessing.current_process().name.startswith("EngineCore")


def engine_core_state(handler: object) -> CoreState:
    """`handler` is EngineCore's handler of SIGTERM or SIGINT."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return CoreState.BEING_MADE  # before 0.32
    variables = _variables_around(handler)
    if "engine_core" not in variables:
        return CoreState.UNKNOWN
    return CoreState.BEING_MADE if variables["engine_core"] is None else CoreState.MADE


def has_been_told_to_end(handler: object) -> bool:
    """Whether EngineCore's handler has been called. Before 0.32 it doesn't say."""
    return bool(_variables_around(handler).get("shutdown_requested"))


def _variables_around(handler: object) -> dict[str, Any]:
    """The variables of the function in which the handler is defined, as far as the handler uses them."""
    if not isinstance(handler, FunctionType):
        return {}
    cells = dict(zip(handler.__code__.co_freevars, handler.__closure__ or (), strict=True))
    values = {}
    for name, cell in cells.items():
        with contextlib.suppress(ValueError):  # it has no value yet
            values[name] = cell.cell_contents
    return values


def note_engines(parallel_config: Any) -> None:
    """In the front end, before it starts its engines: notes how many it starts on this machine.

    Engines of dense models don't learn it from vLLM, which makes each look as if it were alone.
    """
    if not is_engine_core():
        setattr(parallel_config, _ENGINES, parallel_config.data_parallel_size_local)


def noted_engines(parallel_config: Any) -> int:
    """In an engine: how many the front end starts on this machine, as noted there."""
    return int(getattr(parallel_config, _ENGINES, 1))


# Ranks.


def track_files(remove_at_end: Callable[[str], None]) -> list[str]:
    """In a rank: multiprocessing's tracker no longer learns of the named files that this process makes.

    The tracker warns of each file that a killed process has left, and Ctrl-C kills vLLM's processes.
    `remove_at_end` gets each file instead. Shared memory that a rank only attaches to isn't registered at
    all: see rank/attached_memory.py.

    Returns a list of the files of shared memory that this process has made. It changes as files are made
    and removed; a rank that ends in order removes those that are left.
    """
    shared_memory: list[str] = []

    def register(name: Any, rtype: str) -> None:
        file = file_of(name, rtype)
        remove_at_end(file)
        if rtype == "shared_memory":
            shared_memory.append(file)

    def unregister(name: Any, rtype: str) -> None:
        # From now on another program may make a file of that name. The janitor knows which one was ours.
        with contextlib.suppress(ValueError):
            shared_memory.remove(file_of(name, rtype))

    resource_tracker.register = register
    resource_tracker.unregister = unregister
    return shared_memory


# Where versions differ.


def has_watchdog() -> bool:
    """Since 0.33. It writes all threads' stacks to a file when a process makes no progress."""
    return importlib.util.find_spec("vllm.utils.watch_dog") is not None


def defers_outputs(aggregator: Any) -> bool:
    """Since 0.33: whether it takes what ranks have transferred in a step that failed."""
    return hasattr(aggregator, "ft_defer_kv_connector_outputs")


def transferred_by(late: Any) -> Any:
    """What a rank has transferred in a step whose output is lost, or None.

    `late` is an AsyncModelRunnerOutput, which has no such method before 0.33.
    """
    if not hasattr(late, "get_kv_connector_output"):
        return None
    transferred = late.get_kv_connector_output()
    return None if transferred is None or transferred.is_empty() else transferred


def needs_its_constructor(record: type) -> bool:
    """Whether only its constructor can make an instance of it, as of a class whose first base is a Struct.

    vLLM's SamplingParams have another first base in every version of TESTED.
    """
    return record.__base__ is msgspec.Struct
