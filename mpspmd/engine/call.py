"""Call and StepFuture: a request whose replies are still coming."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mpspmd.codec.steps import ReplyContext
from mpspmd.exceptions.fault import restore_cause
from mpspmd.exceptions.foreign import logged
from mpspmd.wire import ReplyRanks

if TYPE_CHECKING:
    from mpspmd.engine.calls import Calls


NO_REPLY: Final = object()
"""In the place of a reply that hasn't come."""


class Call:
    """One request under way. Written by whichever thread reads replies, or by the supervisor."""

    # Of the class until they change: most calls need none of them.
    done = False
    error: BaseException | None = None
    future: StepFuture | None = None
    later: list[Call] | None = None
    """Calls of the same step, which fail when this one does; see Engine.begin."""
    closes: Call | None = None
    """The call that began the step, if this is the step's last."""
    reply_context: ReplyContext | None = None
    keeps_late = False
    """What comes after the call has failed is kept: see Engine.call."""

    def __init__(
        self,
        step: int,
        method: str,
        reply_ranks: ReplyRanks,
        world_size: int,
        deadline: float | None,
        size_class: int,
    ) -> None:
        self.step = step
        # Calls that are alike in this are expected to take as long.
        self.key = hash(method) + (size_class << 8)
        self.method = method
        self.ranks = reply_ranks
        self.deadline = deadline
        self.began = time.monotonic()
        self.asked = self.missing = world_size if reply_ranks == "all" else 1
        self.replies: list[Any] = [NO_REPLY] * world_size
        """In a call that fails, also the RankError of a rank that has raised."""

    def finish(self, error: BaseException | None = None) -> None:
        """Once, by whoever has taken the call from the engine's table."""
        if error is not None:
            self.error = error
        self.done = True
        if self.future is not None:  # else whoever makes one looks whether the call is done
            self.tell()

    def tell(self) -> None:
        """The future, if there is one, that the call is done: once, by whoever takes it away.

        A cycle of both would keep the replies until the garbage collector comes.
        """
        future = vars(self).pop("future", None)
        if future is not None:
            if self.error is None:
                future.set_result(self.outcome())
            else:
                future.set_exception(self.error)

    def outcome(self) -> Any:
        """A list in rank order, or the one reply; raises what went wrong."""
        if self.error is not None:
            restore_cause(self.error)
            raise self.error
        return self.replies if self.ranks == "all" else self.replies[self.ranks]  # type: ignore[index]

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class StepFuture(concurrent.futures.Future[Any]):
    """The result of a call that was made with non_block. Any thread.

    No thread waits for replies in the background: whoever asks reads them, for all that wait. So
    `done()` looks at what has come, and callbacks run in the thread that reads the reply. It can't be
    cancelled: the ranks have the request already.
    """

    _call: Call

    def __init__(self, engine: Calls) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._engine = engine
        self.on_raise: Callable[[], None] | None = None
        """Called when somebody is told that the call has failed, each time."""

    def follow(self, call: Call) -> None:
        """Once, whether the call is done or not."""
        self._call = call
        call.future = self
        # Looked at after the future is there: whoever finishes the call does this in turn.
        if call.done:
            call.tell()

    def result(self, timeout: float | None = None) -> Any:
        """The outcome. TimeoutError after `timeout` seconds; StepTimeout after the call's own."""
        self._drive(timeout)
        # The call has it before the future: no lock is needed.
        try:
            return self._call.outcome()
        except Exception:
            if self.on_raise is not None:
                self.on_raise()
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._drive(timeout)
        error = self._call.error
        restore_cause(error)
        if error is not None and self.on_raise is not None:
            self.on_raise()
        return error

    def replies_so_far(self) -> list[Any]:
        """What each rank has replied to a call that has failed: a value, a RankError, or NO_REPLY.

        With `keeps_late` it grows while others' replies are read.
        """
        return list(self._call.replies)

    def done(self) -> bool:
        if not super().done():
            self._engine.read_replies()
        return super().done()

    def add_done_callback(self, fn: Any) -> None:
        """Called at once if done; else by the engine's reader thread, which this starts."""

        def call_back(future: concurrent.futures.Future[Any]) -> None:
            with logged("a future's callback"):
                fn(future)

        super().add_done_callback(call_back)
        if not super().done():
            self._engine.start_reader()

    def _drive(self, timeout: float | None) -> None:
        if not self._call.done:
            self._engine.wait_for(self._call, timeout)
