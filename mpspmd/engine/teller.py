"""Teller: tells futures that their calls are done, and so calls their callbacks."""

from __future__ import annotations

import time

from mpspmd.engine.call import Call

_AGAIN_S = 0.1
"""How soon a future is tried again that was in use."""


class Teller:
    """The reader thread; when that has ended, any thread."""

    def __init__(self, untold: list[Call]) -> None:
        """`untold`: the calls that are done, and whose futures are to be told. Others append to it."""
        self._untold = untold
        self._in_use: list[Call] = []
        """Calls whose futures were in use when they were to be told."""
        self._again_at = 0.0

    @property
    def must_try_again(self) -> bool:
        """Whether tell() has left some out. Call it again soon."""
        return bool(self._in_use)

    def tell(self) -> None:
        """Tells all, but for those whose futures are in use."""
        if self._in_use and time.monotonic() >= self._again_at:
            self._untold += self._in_use
            self._in_use = []
        while self._untold:
            try:
                call = self._untold.pop(0)
            except IndexError:  # another thread has told the last one
                break
            future = call.kept_future
            if future is None:
                continue  # nobody waits any more, or it has been told
            call.kept_future = None
            if not future.tell():
                call.kept_future = future
                self._in_use.append(call)
                self._again_at = time.monotonic() + _AGAIN_S
