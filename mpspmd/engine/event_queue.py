"""EventQueue: what other threads tell the supervisor."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mpspmd.control.plane import EnginePlane
from mpspmd.engine.events import Event


@dataclass(frozen=True)
class Dropped:
    """Nobody refers to the engine any more: `end` ends its run."""

    end: Callable[[], None]


Told: TypeAlias = Event | Dropped


class EventQueue:
    """`put`: any thread, also from a destructor or a signal's handler. The rest: the supervisor."""

    def __init__(self, plane: EnginePlane) -> None:
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._plane = plane

    def put(self, told: Told) -> None:
        self._told.put(told)
        self._plane.wake()

    def take_all(self) -> Iterator[Told]:
        """What has been put so far. Doesn't wait."""
        while not self._told.empty():
            yield self._told.get()

    def wait(self) -> Told:
        """Waits for the next one. Works also when the control plane doesn't."""
        return self._told.get()
