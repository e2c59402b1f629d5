"""The rank's control thread: answers the engine while the main thread computes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpspmd.control.messages import Dump, Shutdown, Stacks, ToEngine
from mpspmd.control.plane import RankPlane
from mpspmd.processes.stacks import stacks_of_this_process
from mpspmd.threads import start_thread

_LOOK_S = 1.0


class ControlThread:
    """Owns the rank's DEALER."""

    def __init__(self, address: str, rank: int) -> None:
        self._rank = rank
        self._leave: Callable[[], None] | None = None
        self._told_to_leave = False
        self._plane = RankPlane(address, rank)
        self._closing = threading.Event()
        self._thread = start_thread(self._run, name="mpspmd-control")

    def send(self, message: ToEngine) -> None:
        """Any thread."""
        self._plane.send(message)

    def on_shutdown(self, leave: Callable[[], None]) -> None:
        """Calls `leave` in the control thread when the engine says so; now, if it has already."""
        self._leave = leave
        if self._told_to_leave:
            leave()

    def close(self) -> None:
        """Sends what is still to be sent, and ends the thread."""
        self._closing.set()
        self._plane.wake()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._look()
        self._look()
        self._plane.close()

    def _look(self) -> None:
        _, received = self._plane.poll(_LOOK_S if not self._closing.is_set() else 0)
        for message in received:
            match message:
                case Dump(nonce=nonce):
                    self.send(Stacks(self._rank, nonce, stacks_of_this_process()))
                case Shutdown():
                    self._told_to_leave = True
                    if self._leave is not None:
                        self._leave()
