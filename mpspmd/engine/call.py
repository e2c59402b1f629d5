"""Call: a request whose replies are still coming."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import Future
from typing import Any, Final

from mpspmd.codec.steps import ReplyContext
from mpspmd.exceptions.fault import restore_cause
from mpspmd.wire import ReplyRanks

NO_REPLY: Final = object()
"""In the place of a reply that hasn't come."""


class Call:
    """One request under way. Written by the thread that leads, or by the supervisor's."""

    # Attributes of the class until a call sets its own: most calls set none, which saves time.
    done = False
    error: BaseException | None = None
    future: weakref.ref[Future[Any]] | None = None
    """Weak: a call without an answer must not keep alive a future that nobody has, nor the engine."""
    kept_future: Future[Any] | None = None
    """The same future, if it has callbacks: these are called although nobody has the future."""
    later: list[Call] | None = None
    """Calls of the same step, which fail when this one does; see StepCalls.send."""
    closes: Call | None = None
    """The call that began the step, if this is the step's last."""
    reply_context: ReplyContext | None = None
    """What the step codec decodes the replies with."""
    errors: list[tuple[int, Exception]] | None = None
    """What ranks have raised in it so far, each with its rank."""
    keeps_late = False
    """Whether replies that come after the call has failed are kept: see StepCalls.call."""

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
        # Calls with the same key are expected to take equally long.
        self.key = hash(method) + (size_class << 8)
        self.method = method
        self.ranks = reply_ranks
        self.deadline = deadline
        self.began = time.monotonic()
        self.asked = self.missing = world_size if reply_ranks == "all" else 1
        self.replies: list[Any] = [NO_REPLY] * world_size
        """In a call that fails, also the RankError of a rank that has raised."""

    def finish(self, error: BaseException | None = None) -> None:
        """Called once, by the thread that has popped the call from the table. After it, `tell` is due."""
        if error is not None:
            self.error = error
        self.done = True

    def tell(self) -> None:
        """Tells the future, if there is one, that the call is done. The pop lets only one thread do it."""
        reference = vars(self).pop("future", None)
        future = None if reference is None else reference()
        if self.kept_future is not None:
            self.kept_future = None
        if future is not None:
            if self.error is None:
                future.set_result(self.outcome())
            else:
                future.set_exception(self.error)

    def outcome(self) -> Any:
        """Returns the replies, as a list in rank order or as the one reply; or raises the call's error."""
        if self.error is not None:
            restore_cause(self.error)
            raise self.error
        return self.replies if self.ranks == "all" else self.replies[self.ranks]  # type: ignore[index]

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
