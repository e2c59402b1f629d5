"""One engine and N rank processes on one machine, over a lock-free shared-memory ring.

Importing this loads neither torch nor vLLM nor ZeroMQ: each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpspmd.config import RuntimeConfig
    from mpspmd.engine.engine import Engine
    from mpspmd.launch.run import run
    from mpspmd.observe.stats import EngineStats, RankStats
    from mpspmd.rank.worker import RankContext, Worker
    from mpspmd.wire import ExecuteModelRequest, Reply

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "EngineStats",
    "ExecuteModelRequest",
    "RankContext",
    "RankStats",
    "Reply",
    "RuntimeConfig",
    "Worker",
    "run",
]

_HOMES = {
    "Engine": "mpspmd.engine.engine",
    "EngineStats": "mpspmd.observe.stats",
    "ExecuteModelRequest": "mpspmd.wire",
    "RankContext": "mpspmd.rank.worker",
    "RankStats": "mpspmd.observe.stats",
    "Reply": "mpspmd.wire",
    "RuntimeConfig": "mpspmd.config",
    "Worker": "mpspmd.rank.worker",
    "run": "mpspmd.launch.run",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(_HOMES[name]), name)
        return value
