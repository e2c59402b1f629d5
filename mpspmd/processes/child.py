"""Child: a process that multiprocessing starts for a run, and doesn't know afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from multiprocessing import popen_spawn_posix
from multiprocessing.context import SpawnProcess
from typing import Any

from mpspmd.processes.main_module import without_main_module
from mpspmd.processes.process import Process
from mpspmd.processes.signals import STACK_SIGNAL
from mpspmd.threads import signals_blocked


def start_child(
    target: Callable[[], None], name: str, signals_of_engine: Collection[int]
) -> Process:
    """Starts a process that calls `target`, and in which these signals and STACK_SIGNAL are blocked.

    Defer signals around this call until whoever ends the process knows it.
    """
    child = Child(target=target, name=name, daemon=False)
    with without_main_module(), signals_blocked({*signals_of_engine, STACK_SIGNAL}):
        child.start()
    popen = child.popen
    return Process(popen.pid, popen.sentinel, popen.close, is_child=True)


class Child(SpawnProcess):
    """Only `start()` may be used. The engine watches and ends it through a `Process`.

    It is a process of torch.multiprocessing too: both have the same base, and `import torch` adds how
    tensors in shared memory are pickled. Torch isn't imported here, because that takes seconds.

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
