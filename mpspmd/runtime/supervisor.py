"""Supervisor: the engine's thread that knows how its ranks are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

from mpspmd.control.messages import Fault, Goodbye, Hello, Pong, Ready, Shutdown
from mpspmd.control.plane import EnginePlane
from mpspmd.errors import StartupError
from mpspmd.runtime.spawn import exit_reason

logger = logging.getLogger(__name__)

_SETTLE_S = 0.5
"""How long other ranks' faults may follow the first one at start: the cause may be among them."""


class Supervisor:
    """Owns the engine's ROUTER and watches the ranks' processes, in a thread of its own.

    `on_fault` and `on_death` are called in that thread.
    """

    def __init__(
        self,
        plane: EnginePlane,
        on_fault: Callable[[Fault], None],
        on_death: Callable[[int, str], None],
    ) -> None:
        self._plane = plane
        self._on_fault = on_fault
        self._on_death = on_death
        self._processes: dict[int, tuple[int, BaseProcess]] = {}
        self._change = threading.Condition()
        self._ready: set[int] = set()
        self._failed: dict[int, str] = {}
        self._starting = True
        self._deaths_expected = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mpspmd-supervisor", daemon=True)
        self._thread.start()

    def watch(self, processes: Sequence[BaseProcess]) -> None:
        """These are the ranks, in order. Once."""
        with self._change:
            self._processes = {
                process.sentinel: (rank, process) for rank, process in enumerate(processes)
            }
        self._plane.wake()

    def wait_until_ready(self, world_size: int, timeout_s: float | None) -> None:
        """Returns when all ranks are ready. StartupError with the root cause of each that failed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._change:
            while len(self._ready) < world_size and not self._failed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._failed = dict.fromkeys(
                        set(range(world_size)) - self._ready,
                        f"not ready after {timeout_s:g} s (MPSPMD_START_TIMEOUT_S)",
                    )
                    break
                # In slices, so that Ctrl-C is seen: a condition's wait can't be interrupted.
                self._change.wait(0.2 if left is None else min(left, 0.2))
            if not self._failed:
                self._starting = False
                return
            settled = time.monotonic() + _SETTLE_S
            while len(self._failed) < world_size and time.monotonic() < settled:
                self._change.wait(settled - time.monotonic())
            raise StartupError(dict(self._failed))

    def all_ready(self, world_size: int) -> bool:
        return len(self._ready) == world_size

    def ask_to_leave(self, ranks: Sequence[int]) -> None:
        """Any thread. Each rank leaves as soon as its current method returns."""
        for rank in ranks:
            self._plane.send(rank, Shutdown())

    def close(self) -> None:
        """Ends the thread and closes the socket."""
        self._closing = True
        self._plane.wake()
        if threading.current_thread() is not self._thread:  # a failure callback may shut down
            self._thread.join(timeout=5)

    def expect_deaths(self) -> None:
        """From now on a rank's end is no failure."""
        self._deaths_expected = True

    def _run(self) -> None:
        watched: dict[int, tuple[int, BaseProcess]] = {}
        while not self._closing:
            for sentinel in self._processes.keys() - watched.keys():
                watched[sentinel] = self._processes[sentinel]
                self._plane.watch(sentinel)
            ended, received = self._plane.poll(1.0)
            for message in received:
                self._take(message)
            for sentinel in ended & watched.keys():
                self._plane.unwatch(sentinel)
                self._take_death(*watched[sentinel])
        self._plane.close()

    def _take(self, message: Hello | Ready | Fault | Pong | Goodbye) -> None:
        match message:
            case Ready(rank=rank):
                with self._change:
                    self._ready.add(rank)
                    self._change.notify_all()
            case Fault() if self._starting:
                self._fail_start(message.rank, f"{message.exception}: {message.message}\n"
                                 f"{message.traceback}")  # fmt: skip
            case Fault():
                self._on_fault(message)
            case _:
                logger.debug("control: %s", message)

    def _take_death(self, rank: int, process: BaseProcess) -> None:
        if self._deaths_expected:
            return
        process.join(timeout=0.1)
        if self._starting:
            self._fail_start(rank, f"its process ended before it was ready: {exit_reason(process)}")
        else:
            self._on_death(rank, exit_reason(process))

    def _fail_start(self, rank: int, cause: str) -> None:
        with self._change:
            # The first word counts: after a fault the process ends as well.
            self._failed.setdefault(rank, cause)
            self._change.notify_all()
