"""Child: a process that multiprocessing spawns for a rank, and that the engine alone looks after."""

from __future__ import annotations

import contextlib
from multiprocessing import popen_spawn_posix
from multiprocessing.context import SpawnProcess
from typing import Any


class Child(SpawnProcess):
    """`start()` and no more: a `Process` watches it, and ends it.

    multiprocessing isn't told of it. At exit it would send signals to its children by their numbers, and
    wait for ever for one that somebody else has reaped. And it lets no daemonic process (of a
    multiprocessing.Pool, of Celery) have children, because nobody would end them; our ranks end with
    their engine by themselves.
    """

    def start(self) -> None:
        self.popen = _Popen(self)
        # As multiprocessing does: they may hold much, and refer to this object.
        del self._target, self._args, self._kwargs  # type: ignore[attr-defined]


class _Popen(popen_spawn_posix.Popen):
    def _launch(self, process: Any) -> None:
        # It has ended before it has read what it needs: whoever watches it finds out why.
        with contextlib.suppress(BrokenPipeError):
            super()._launch(process)  # type: ignore[misc]
