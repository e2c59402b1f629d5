"""Reports: what a node tells the head of its ranks' processes, beside what the ranks say themselves."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from mpspmd.bridge.messages import Dying, Ended, FromRank, ToHead
from mpspmd.bridge.node import USAGE
from mpspmd.bridge.place import NodePlace
from mpspmd.control import messages as control
from mpspmd.control.plane import EnginePlane
from mpspmd.engine.ranks import Ranks
from mpspmd.processes.exit_status import PENDING
from mpspmd.threads import start_thread
from mpspmd.transport.channel import FollowerChannel

_USAGE_S = 0.5
_STACKS_S = 0.2
"""How long a rank's control thread may take to answer, before the rank gets a signal."""


class Reports:
    """All calls but `watch_from_now_on` need the follower's lock. `put` sends a message to the head."""

    def __init__(
        self,
        place: NodePlace,
        ranks: Ranks,
        channel: FollowerChannel,
        put: Callable[[ToHead], None],
        lock: threading.Lock,
    ) -> None:
        self._lock = lock
        self._place = place
        self._ranks = ranks
        self._channel = channel
        self._put = put
        self.because = ""
        """Why this node ends its ranks, if it isn't the head that wants it."""
        self._watching: set[int] | None = None
        self._dying: set[int] = set()
        self._ended: set[int] = set()
        self._ready: set[int] = set()
        self._usages = [USAGE.pack(0.0, b"unknown")] * place.local_world_size
        self._next_usage = 0.0
        self._stacks: dict[int, tuple[int, float]] = {}
        """Ranks that have been asked for their stacks: the request's nonce, and the time to answer it."""

    def watch_from_now_on(self) -> None:
        """All processes have been started. Any thread."""
        self._watching = set()

    def note(self, message: control.ToEngine) -> None:
        """Takes note of what a rank has said to the engine."""
        if isinstance(message, control.Ready):
            self._ready.add(message.rank)
        elif isinstance(message, control.Stacks):
            self._stacks.pop(message.rank, None)

    def tell(self, ready: set[int], plane: EnginePlane, *, expected: bool) -> bool:
        """Tells the head which ranks have ended. `expected`: the run has ended, so they may. True if
        any has."""
        if self._watching is None:
            return False
        processes = self._ranks.processes
        if not self._watching and processes:
            self._watching = {process.sentinel for process in processes}
            for sentinel in self._watching:
                plane.watch(sentinel)
        for sentinel in ready & self._watching:
            plane.unwatch(sentinel)
        if self._channel.deaths_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._channel.deaths_fd)
        first = self._place.ranks[0]
        for index in self._channel.dead_ranks() if not expected else ():
            if index not in self._dying | self._ended:
                self._dying.add(index)
                self._put(Dying(first + index))
        ended = False
        for index, process in enumerate(processes):
            if index not in self._ended and not process.is_alive():
                ended = True
                self._ended.add(index)
                self._put(Ended(first + index, process.pid, process.exit_code, self._reason(index)))
        self._ask_by_signal()
        return ended

    def _reason(self, index: int) -> str:
        if self.because:
            return self.because
        reason = self._ranks.processes[index].exit_reason()
        is_ready = self._place.ranks[index] in self._ready
        words = "" if is_ready or reason == PENDING else self._ranks.last_words(index)
        return f"{reason}\n{words}" if words else reason

    def lines(self, now: float) -> bytes:
        """This node's lines of the head's status page."""
        if now >= self._next_usage:
            self._next_usage = now + _USAGE_S
            for index, process in enumerate(self._ranks.processes):
                if (usage := process.usage()) is not None:
                    self._usages[index] = USAGE.pack(usage.cpu_s, usage.state.encode()[:16])
        status = self._channel.status
        return b"".join(
            status.line(index).copy() + usage for index, usage in enumerate(self._usages)
        )

    def expect_stacks(self, rank: int, nonce: int) -> None:
        self._stacks[rank] = nonce, time.monotonic() + _STACKS_S

    def _ask_by_signal(self) -> None:
        """A rank whose control thread doesn't get the interpreter's lock writes its stacks on a signal."""
        now = time.monotonic()
        for rank, (nonce, late) in list(self._stacks.items()):
            index = rank - self._place.ranks[0]
            attached = self._channel.status.line(index).snapshot()["pid"] != 0
            if now > late and attached:
                del self._stacks[rank]
                start_thread(self._signal, rank, index, nonce, name="mpspmd-stacks")

    def _signal(self, rank: int, index: int, nonce: int) -> None:
        text = self._ranks.stacks_by_signal(index)
        with self._lock:
            self._put(FromRank(control.encode(control.Stacks(rank, nonce, text))))
