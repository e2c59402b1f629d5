"""follow(): what a node without an engine does from its start to the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mpspmd.bridge.keys import keys_from
from mpspmd.bridge.place import NodePlace
from mpspmd.config import RuntimeConfig
from mpspmd.engine.ranks import WorkerSpec
from mpspmd.errors import MpSpmdError
from mpspmd.log import set_level
from mpspmd.machine.green_threads import refuse_green_threads
from mpspmd.machine.room import check_room
from mpspmd.nodes.connection import Connection
from mpspmd.nodes.follower import Follower, the_heads_worker
from mpspmd.processes.launch import refuse_an_engine_on_a_rank
from mpspmd.processes.main_module import refuse_while_main_is_imported
from mpspmd.processes.signals import exiting_at_sigterm
from mpspmd.processes.spawn import AroundStart, StartRanks, start_ranks
from mpspmd.transport.descriptor import open_standard_descriptors


def follow(
    worker: Callable[..., Any] | None = None,
    *,
    world_size: int,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    config: RuntimeConfig | None = None,
    nodes: NodePlace,
    around_start: AroundStart | None = None,
    remove_at_end: Sequence[str] = (),
    start: StartRanks = start_ranks,
) -> int:
    """Waits for the head, starts this node's ranks, and serves until the run ends. Returns the exit code.

        sys.exit(mpspmd.nodes.follow(world_size=4, nodes=NodePlace(1, 2, 2, "10.0.0.1", 29500)))

    Every node but the head calls it, in its main thread, instead of making an engine. It returns 0 after an
    orderly shutdown, and 1 if the run has failed or the head is gone; the log says why. Ctrl-C and
    SIGTERM end this node's ranks, and are raised as KeyboardInterrupt and SystemExit.

    Args:
        worker: What makes the worker on this node's ranks, with `args` and `kwargs`. By default it is what
            the head's engine was given.
        world_size: The ranks of all nodes.
        config: `start_timeout_s`, which is how long to wait for the head, and `runtime_dir` are this node's
            own. All other settings are the head's.
        around_start, remove_at_end, start: As for `Engine`; for this node's ranks.

    Raises:
        ConfigError: An argument can't be used, or the head refuses this node: by its secret, its
            version, its number or its world size. Or the nodes' secret is missing or too short.
        StartupError: The head can't be reached within the start timeout.
        SegmentError: The machine doesn't have what the run needs.
    """
    open_standard_descriptors()
    refuse_an_engine_on_a_rank()
    refuse_while_main_is_imported()
    refuse_green_threads()
    set_level()
    nodes.check(world_size, is_head=False)
    config = config or RuntimeConfig.from_env()
    with exiting_at_sigterm(), Connection(nodes, keys_from()) as connection:
        welcome = connection.join(config.start_timeout_s)
        config = replace(config, **welcome.settings)
        spec = WorkerSpec(worker or the_heads_worker, args, kwargs or {}, None, around_start, start)
        try:
            check_room(nodes.local_world_size)
            follower = Follower(connection, welcome.session, config, spec, remove_at_end)
        except MpSpmdError as error:
            connection.fail(str(error))
            raise
        with follower:
            return follower.run()
