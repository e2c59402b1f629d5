"""One engine and N rank processes, on one machine or several, over a lock-free shared-memory ring.

Importing this loads neither torch nor vLLM nor ZeroMQ: all names but the errors are imported when they
are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpspmd import errors
from mpspmd.errors import *  # noqa: F403

if TYPE_CHECKING:
    from mpspmd.config import RuntimeConfig
    from mpspmd.engine.engine import Engine
    from mpspmd.engine.future import StepFuture
    from mpspmd.launch.run import run
    from mpspmd.observe.stats import EngineStats, RankStats
    from mpspmd.rank.worker import RankContext, Worker
    from mpspmd.report import Progress, RankReport, StallReport
    from mpspmd.wire import ExecuteModelRequest

__version__ = "0.2.0"

__all__ = [
    "Engine",
    "EngineStats",
    "ExecuteModelRequest",
    "Progress",
    "RankContext",
    "RankReport",
    "RankStats",
    "RuntimeConfig",
    "StallReport",
    "StepFuture",
    "Worker",
    "errors",
    "run",
]
__all__ += errors.__all__

_MODULES = {
    "Engine": "engine.engine",
    "EngineStats": "observe.stats",
    "ExecuteModelRequest": "wire",
    "Progress": "report",
    "RankContext": "rank.worker",
    "RankReport": "report",
    "RankStats": "observe.stats",
    "RuntimeConfig": "config",
    "StallReport": "report",
    "StepFuture": "engine.future",
    "Worker": "rank.worker",
    "run": "launch.run",
}
"""Where the names are that aren't imported above."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
