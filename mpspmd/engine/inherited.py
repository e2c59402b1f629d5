"""Inherited: what is left of an engine in a process that was forked from the engine's."""

from __future__ import annotations

import os
import weakref
from typing import Any, NoReturn

from mpspmd.errors import EngineClosed


class Inherited:
    """Takes the place of an engine's parts: each use of it raises EngineClosed."""

    def __init__(self, engine_pid: int) -> None:
        self._engine_pid = engine_pid

    def __getattr__(self, name: str) -> NoReturn:
        raise EngineClosed(
            f"this engine belongs to process {self._engine_pid}, from which process {os.getpid()} has been "
            "forked: only that process can use it; make an engine after the fork"
        )


_engines: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The engines of this process, each with the id of the process that made it."""


def end_with_fork(engine: Any) -> None:
    """From now on the engine's copy in a forked process refuses to work, and says why: in that process its
    method `become_inherited` is called, with the object that takes the place of the engine's parts.

    If such a copy worked, it would wait for locks that threads of the parent hold, and use the parent's
    rings and ranks.
    """
    _engines[engine] = os.getpid()


def _in_child() -> None:
    for engine, pid in list(_engines.items()):
        engine.become_inherited(Inherited(pid))
    _engines.clear()


os.register_at_fork(after_in_child=_in_child)
