"""follow(): what a node without an engine does from its start to the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpspmd.bridge.place import NodePlace
from mpspmd.config import RuntimeConfig
from mpspmd.processes.spawn import AroundStart


def follow(
    worker: Callable[..., Any] | None = None,
    *,
    world_size: int,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    config: RuntimeConfig | None = None,
    nodes: NodePlace,
    around_start: AroundStart | None = None,
) -> int:
    """Waits for the head, starts this node's ranks, and serves until the run ends. Returns the exit code.

    The code is 0 after an orderly shutdown; otherwise the run has failed, or the head is gone.
    """
    raise NotImplementedError
