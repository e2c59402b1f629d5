"""run(): one script that is an engine and its ranks, however it is started."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mpspmd.bridge.place import NodePlace
from mpspmd.config import RuntimeConfig
from mpspmd.engine.engine import Engine
from mpspmd.errors import ConfigError, MpSpmdError, RankDied, RankError, text_of
from mpspmd.launch.handover import hand_over, receive
from mpspmd.processes.launch import Launch
from mpspmd.processes.main_module import RANK_NAME, refuse_while_main_is_imported
from mpspmd.processes.process import wait_for_end_of_parent
from mpspmd.processes.signals import exiting_at_sigterm
from mpspmd.threads import start_thread
from mpspmd.transport.descriptor import open_standard_descriptors

Result = TypeVar("Result")

_ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
_LAUNCHER_GRACE_S = 5.0
"""How long an engine may take to end after its launcher has ended."""


def run(
    worker_cls: Callable[..., Any],
    main: Callable[[Engine], Result],
    *,
    world_size: int | None = None,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    config: RuntimeConfig | None = None,
) -> Result:
    """Starts an engine with `world_size` ranks, calls `main(engine)`, shuts down, and returns its result.

        def main(engine):
            return engine.execute_model([1, 2])

        if __name__ == "__main__":
            print(mpspmd.run(Worker, main, world_size=2))

    `python app.py` spawns the ranks. Under `mpspmd-launch -n N app.py` the launcher has started the same
    script as engine and as ranks, and in a rank this doesn't return. `worker_cls`, `args`, `kwargs` and
    `config` are as for `Engine`. `world_size` defaults to what the launcher was told, and without a
    launcher to the number of GPUs, or 1.

    Over several nodes (`mpspmd-launch --nnodes`) only node 0 calls `main`. On every other node `run` serves
    that node's ranks, and ends the process when the run is over.

    Ctrl-C and SIGTERM shut everything down and end the process with exit code 130 or 143, without a
    traceback; in `main` they are KeyboardInterrupt and SystemExit. Call it once, from the main thread,
    under `if __name__ == "__main__":`.

    Raises:
        ConfigError: `world_size` differs from what the launcher has started, a worker has called this, or a
            setting can't be used.
        Exception: Whatever `Engine` and `main` raise, after everything has been shut down.
    """
    open_standard_descriptors()
    refuse_while_main_is_imported()
    name = multiprocessing.current_process().name
    if name.startswith(RANK_NAME):
        raise ConfigError(
            f"mpspmd.run() was called by a worker, in {name}: use mpspmd.Engine there"
        )
    launch = Launch.take()
    if launch is not None and launch.is_rank:
        start = receive(launch)
        start.report_start_failure = _FailureReport().write
        start.begins_lines = False
        start()  # serves the engine until it shuts down, and then ends this process
        raise AssertionError("a rank's process has returned")
    with _exiting_at_signals():
        if launch is None:
            if world_size is None:
                import torch

                world_size = max(1, torch.cuda.device_count())
            with Engine(
                worker_cls, world_size=world_size, args=args, kwargs=kwargs, config=config
            ) as engine:
                return main(engine)
        with _around_engine(launch) as report:
            if world_size not in (None, launch.world_size):
                raise ConfigError(
                    f"world_size={world_size}: mpspmd-launch has started {launch.world_size} rank(s); "
                    f"give it -n {world_size}, or leave world_size out"
                )
            options: dict[str, Any] = {"args": args, "kwargs": kwargs, "config": config}
            options |= {"world_size": launch.world_size, "start": hand_over(launch)}
            place = None
            if launch.num_nodes > 1:
                n_local = launch.world_size // launch.num_nodes
                place = NodePlace(
                    launch.node_rank, launch.num_nodes, n_local, launch.head, launch.port
                )
            if place is not None and place.node_rank > 0:
                from mpspmd.nodes.follow import follow

                raise SystemExit(follow(worker_cls, nodes=place, **options))
            with Engine(worker_cls, nodes=place, on_cause=report.write, **options) as engine:
                return main(engine)


@contextlib.contextmanager
def _exiting_at_signals() -> Iterator[None]:
    """In the body SIGTERM raises SystemExit(143), and Ctrl-C becomes SystemExit(130)."""
    with exiting_at_sigterm():
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as end:
            # The process ends. Its last garbage collection would look through all of torch: half a second.
            gc.freeze()
            if isinstance(end, SystemExit):
                raise
            raise SystemExit(128 + signal.SIGINT) from None


class _FailureReport:
    """Writes why this process fails into its error file, in torch.distributed.elastic's format.

    Only the first cause is written. Any thread.
    """

    def __init__(self) -> None:
        self._path = os.environ.get(_ERROR_FILE_VARIABLE)
        self._once = threading.Lock()

    def write(self, error: BaseException) -> None:
        """Writes at once, because the launcher may end this process before `main` gets the error."""
        if not self._path or not self._once.acquire(blocking=False):
            return
        message = {
            "message": f"{type(error).__qualname__}: {text_of(error)}",
            "extraInfo": {
                # The message of one of our errors has the rank's traceback, which matters more.
                "py_callstack": ""
                if isinstance(error, MpSpmdError)
                else "".join(traceback.format_exception(error)).rstrip(),
                "timestamp": str(int(time.time())),
            },
        }
        rank = error.rank if isinstance(error, RankDied | RankError) else None
        died = isinstance(error, RankDied)
        with contextlib.suppress(OSError), open(self._path, "w", encoding="utf-8") as file:
            json.dump({"message": message, "rank": rank, "died": died}, file)


@contextlib.contextmanager
def _around_engine(launch: Launch) -> Iterator[_FailureReport]:
    """Around all that a script does as the engine: reports a failure, and ends it with its launcher."""
    report = _FailureReport()
    with contextlib.suppress(OSError):
        launch.untaken.unlink()
    start_thread(_end_with, os.getppid(), name="mpspmd-launcher")
    try:
        yield report
    except Exception as error:
        report.write(error)
        raise


def _end_with(launcher_pid: int) -> None:
    wait_for_end_of_parent(launcher_pid)
    # As Ctrl-C would end it; SIGTERM if SIGINT is ignored, as in background jobs of a shell script. It is
    # sent to the main thread, because only a signal to that thread surely wakes it up.
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM if ignored else signal.SIGINT)
    time.sleep(_LAUNCHER_GRACE_S)
    os._exit(1)
