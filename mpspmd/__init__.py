"""One engine and N rank processes on one machine, over a lock-free shared-memory ring.

Importing this loads neither torch nor vLLM nor ZeroMQ: each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpspmd.config import RuntimeConfig
    from mpspmd.request import ExecuteModelRequest, Reply
    from mpspmd.runtime.engine import Engine
    from mpspmd.runtime.run import run
    from mpspmd.runtime.stats import EngineStats, RankStats
    from mpspmd.runtime.worker import RankContext, Worker

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
    "Engine": "mpspmd.runtime.engine",
    "EngineStats": "mpspmd.runtime.stats",
    "ExecuteModelRequest": "mpspmd.request",
    "RankContext": "mpspmd.runtime.worker",
    "RankStats": "mpspmd.runtime.stats",
    "Reply": "mpspmd.request",
    "RuntimeConfig": "mpspmd.config",
    "Worker": "mpspmd.runtime.worker",
    "run": "mpspmd.runtime.run",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(_HOMES[name]), name)
        return value
