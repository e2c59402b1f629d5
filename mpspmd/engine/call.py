"""Call: a request whose replies are still coming."""

from __future__ import annotations

import time
from typing import Any

from mpspmd import _ring
from mpspmd._ring import NO_REPLY as NO_REPLY
from mpspmd.exceptions.fault import restore_cause


class Call(_ring.Call):
    """One request under way. Written by the thread that leads, or by the supervisor's."""

    __slots__ = ("__weakref__",)

    def tell(self) -> None:
        """Tells the future, if there is one, that the call is done. Only one thread gets the reference."""
        reference = self.take_future()
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
