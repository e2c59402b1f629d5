"""CoreCount: tells a run how many cores it may use, which may change while it runs."""

from __future__ import annotations

import time

from mpspmd._ring import StatusPage
from mpspmd.machine.cores import usable_cores

_EVERY_S = 5.0


class CoreCount:
    """Counts again now and then, in the supervisor's thread.

    That thread's own affinity counts: what limits it limits every thread of the run. A program that moves
    just its main thread to one core takes no core from its ranks.
    """

    def __init__(self, page: StatusPage) -> None:
        self._page = page
        self._due = time.monotonic() + _EVERY_S

    def tick(self) -> float:
        """Counts if it is time to. Returns the seconds until the next count."""
        now = time.monotonic()
        if now >= self._due:
            self._page.set_cores(usable_cores())
            self._due = now + _EVERY_S
        return self._due - now
