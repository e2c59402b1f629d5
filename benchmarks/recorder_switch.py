"""Turns the recorder of a running engine off and on."""

from __future__ import annotations

from typing import Any

from benchmarks.errors import BenchmarkError
from mpspmd import Engine


def switch(engine: Engine, on: bool) -> None:
    """In the engine's process and in all ranks. BenchmarkError if the engine has no recorder."""
    track = engine._channel.track
    if track is None:
        raise BenchmarkError("this engine has no recorder: unset MPSPMD_RECORD_STEPS")
    track.pause(not on)
    engine.collective_rpc(_pause, args=(not on,))


def _pause(worker: Any, paused: bool) -> None:
    worker.ctx._track.pause(paused)
