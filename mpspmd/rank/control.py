"""ControlThread: answers the engine while the rank's main thread computes."""

from __future__ import annotations

from collections.abc import Callable

from mpspmd.control.messages import Dump, Shutdown, Stacks, ToEngine
from mpspmd.control.plane import RankPlane
from mpspmd.processes.stacks import stacks_of_this_process
from mpspmd.rank.collectives import last_collectives
from mpspmd.threads import start_thread

_POLL_S = 1.0


class ControlThread:
    """Owns the rank's end of the control plane."""

    def __init__(self, address: str, rank: int) -> None:
        self._rank = rank
        self._on_shutdown: Callable[[], None] | None = None
        self._told_to_exit = False
        self._plane = RankPlane(address, rank)
        self._is_closing = False
        self._thread = start_thread(self._run, name="mpspmd-control")

    def send(self, message: ToEngine) -> None:
        """Any thread."""
        self._plane.send(message)

    def on_shutdown(self, callback: Callable[[], None]) -> None:
        """Calls back in the control thread when the engine sends Shutdown; at once if it has already."""
        self._on_shutdown = callback
        if self._told_to_exit:
            callback()

    def close(self) -> None:
        """Sends what is still to be sent, and ends the thread."""
        self._is_closing = True
        self._plane.wake()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._is_closing:
            self._poll(_POLL_S)
        self._poll(0)
        self._plane.close()

    def _poll(self, timeout_s: float) -> None:
        _, received = self._plane.poll(timeout_s)
        for message in received:
            match message:
                case Dump(nonce=nonce):
                    stacks = stacks_of_this_process()
                    self.send(Stacks(self._rank, nonce, stacks, last_collectives()))
                case Shutdown():
                    self._told_to_exit = True
                    if self._on_shutdown is not None:
                        self._on_shutdown()
