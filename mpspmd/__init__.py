"""One engine and N rank processes, on one machine or several, over a lock-free shared-memory ring.

Importing this loads neither torch nor vLLM nor ZeroMQ: each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from mpspmd import errors
    from mpspmd.config import RuntimeConfig
    from mpspmd.engine.engine import Engine
    from mpspmd.engine.future import StepFuture
    from mpspmd.errors import (
        ChannelClosed,
        ChannelCorrupt,
        ChannelError,
        ChannelPoisoned,
        CodecDesync,
        ConfigError,
        DecodeError,
        DumpError,
        EncodeError,
        EngineClosed,
        MpSpmdError,
        NodeLost,
        RankDied,
        RankError,
        RecordingError,
        SegmentError,
        StartupError,
        StepRefused,
        StepTimeout,
        UnknownMethod,
        WorkerNotPicklable,
    )
    from mpspmd.launch.run import run
    from mpspmd.observe.stats import EngineStats, RankStats
    from mpspmd.rank.worker import RankContext, Worker
    from mpspmd.report import Progress, RankReport, StallReport
    from mpspmd.wire import ExecuteModelRequest

__version__ = "0.2.0"

__all__ = [
    "ChannelClosed",
    "ChannelCorrupt",
    "ChannelError",
    "ChannelPoisoned",
    "CodecDesync",
    "ConfigError",
    "DecodeError",
    "DumpError",
    "EncodeError",
    "Engine",
    "EngineClosed",
    "EngineStats",
    "ExecuteModelRequest",
    "MpSpmdError",
    "NodeLost",
    "Progress",
    "RankContext",
    "RankDied",
    "RankError",
    "RankReport",
    "RankStats",
    "RecordingError",
    "RuntimeConfig",
    "SegmentError",
    "StallReport",
    "StartupError",
    "StepFuture",
    "StepRefused",
    "StepTimeout",
    "UnknownMethod",
    "Worker",
    "WorkerNotPicklable",
    "errors",
    "run",
]

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
"""Where the names are; those that are not here are errors."""


def _import(name: str) -> ModuleType:
    """Imports one of our modules. If the C extensions aren't there, the ImportError says what to do."""
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (f"{__name__}._ring", f"{__name__}._delta"):
            raise
        raise ImportError(
            f"Python imported mpspmd from {__path__[0]}, where its C extensions have not been built. If "
            "you have installed mpspmd, keep your program outside the folder with its sources, and start "
            "it in another folder; otherwise run `pip install .` in the folder with the sources"
        ) from error


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _import(f"{__name__}.{_MODULES.get(name, 'errors')}")
        globals()[name] = value = module if name == "errors" else getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
