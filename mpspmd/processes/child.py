"""Child: a process that multiprocessing starts for a rank, and doesn't know afterwards."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import sys
from multiprocessing import popen_spawn_posix
from multiprocessing.context import BaseContext, SpawnProcess
from typing import Any


def spawn_context() -> BaseContext:
    """torch.multiprocessing's if this process has torch: then arguments may be tensors in shared memory.

    Else the standard library's, because an import of torch takes seconds. Both have the same Process, which
    is the base of Child: torch adds how its objects are pickled.
    """
    module: Any = multiprocessing
    if "torch" in sys.modules:
        module = importlib.import_module("torch.multiprocessing")
    context: BaseContext = module.get_context("spawn")
    return context


class Child(SpawnProcess):
    """Only `start()` may be used. The engine watches and ends it through a `Process`.

    It must not be in multiprocessing's list of children. At exit multiprocessing signals them by pid, and
    waits for ever for one that other code has reaped. And multiprocessing forbids children to daemonic
    processes (of a Pool, of Celery), because nobody would end them; our ranks end when their engine does.
    """

    def start(self) -> None:
        self.popen = _Popen(self)
        # multiprocessing does the same: they may hold much memory, and refer to this object.
        del self._target, self._args, self._kwargs  # type: ignore[attr-defined]


class _Popen(popen_spawn_posix.Popen):
    def _launch(self, process: Any) -> None:
        # The process has ended before it has read its arguments. Its Process will tell why.
        with contextlib.suppress(BrokenPipeError):
            super()._launch(process)  # type: ignore[misc]
