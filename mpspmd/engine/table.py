"""CallTable: the calls that are under way, by step."""

from __future__ import annotations

from mpspmd.engine.call import Call

_MAX_KEPT = 64
"""Failed calls that still collect late replies: a rank that hangs would keep each of them for ever."""


class CallTable:
    """Data only. Any thread: each method changes a dict once, which is atomic."""

    def __init__(self) -> None:
        self.pending: dict[int, Call] = {}
        """Calls that aren't done. Only the thread that pops a call may finish it."""
        self.failing: dict[int, Call] = {}
        """Calls in which ranks have raised, until the supervisor has decided what they fail with."""
        self.kept: dict[int, Call] = {}
        """Failed calls that collect late replies."""
        self.late = 0
        """Replies that came after their call had timed out or failed, whether they were kept or dropped."""

    def all(self) -> list[Call]:
        """In the order in which they were sent."""
        return list(self.pending.values())

    def oldest(self) -> Call | None:
        """The call that has been under way for longest."""
        return next(iter(self.all()), None)

    def note_error(self, call: Call, rank: int, error: Exception) -> None:
        """A rank has raised. The thread that reads, or the supervisor's; both may at once."""
        call.note_error(rank, error)
        self.failing[call.step] = call

    def keep(self, call: Call) -> None:
        self.kept[call.step] = call
        for step in list(self.kept)[:-_MAX_KEPT]:
            self.kept.pop(step, None)
