"""run(): one script that is an engine and its ranks, however it is started."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mpspmd.bridge.place import NodePlace
from mpspmd.config import RuntimeConfig
from mpspmd.engine.engine import Engine
from mpspmd.errors import ConfigError
from mpspmd.launch import launched
from mpspmd.launch.handover import hand_over
from mpspmd.processes.launch import Launch
from mpspmd.processes.main_module import RANK_NAME, refuse_while_main_is_imported
from mpspmd.processes.signals import exiting_at_sigterm
from mpspmd.transport.descriptor import open_standard_descriptors

Result = TypeVar("Result")


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
        launched.be_a_rank(launch)
    with _exiting_at_signals():
        if launch is None:
            if world_size is None:
                import torch

                world_size = max(1, torch.cuda.device_count())
            with Engine(
                worker_cls, world_size=world_size, args=args, kwargs=kwargs, config=config
            ) as engine:
                return main(engine)
        with launched.around_engine(launch) as report:
            if world_size not in (None, launch.world_size):
                raise ConfigError(
                    f"world_size={world_size}: mpspmd-launch has started {launch.world_size} rank(s); "
                    f"give it -n {world_size}, or leave world_size out"
                )
            options: dict[str, Any] = {"args": args, "kwargs": kwargs, "config": config}
            options |= {"world_size": launch.world_size, "start": hand_over(launch)}
            place = _place_of(launch)
            if place is not None and place.node_rank > 0:
                from mpspmd.nodes.follow import follow

                raise SystemExit(follow(worker_cls, nodes=place, **options))
            with Engine(worker_cls, nodes=place, on_cause=report.write, **options) as engine:
                return main(engine)


def _place_of(launch: Launch) -> NodePlace | None:
    """None on one machine."""
    if launch.num_nodes == 1:
        return None
    local = launch.world_size // launch.num_nodes
    return NodePlace(launch.node_rank, launch.num_nodes, local, launch.head, launch.port)


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
