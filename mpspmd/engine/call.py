"""Call: a request whose replies are still coming; CallTable: those of an engine, by step."""

from __future__ import annotations

import math
import time
from typing import NoReturn

from mpspmd import _ring
from mpspmd._ring import NO_REPLY as NO_REPLY
from mpspmd.engine.outcome import anew
from mpspmd.errors import ConfigError
from mpspmd.exceptions.fault import restore_cause

_MAX_KEPT = 64
"""Failed calls that still collect late replies: a rank that hangs would keep each of them for ever."""


def deadline_after(timeout: float | None) -> float | None:
    """The time of time.monotonic() in `timeout` seconds. ConfigError if that is no number of seconds."""
    if timeout is None:
        return None
    try:
        deadline = time.monotonic() + float(timeout + 0.0)  # float() alone would take text
    except (TypeError, ValueError, OverflowError):
        deadline = math.nan
    if math.isnan(deadline):
        raise ConfigError(f"timeout={timeout!r}: must be a number of seconds, or None")
    return deadline


def check_arguments(args: object, kwargs: object) -> None:
    """Raises ConfigError if a callable can't be called with them."""
    if not isinstance(args, tuple | list):
        kind = type(args).__qualname__
        raise ConfigError(f"args is of {kind}: must be a tuple; of one argument it is (argument,)")
    if not isinstance(kwargs, dict):
        raise ConfigError(f"kwargs is of {type(kwargs).__qualname__}: must be a dict")


class Call(_ring.Call):
    """One request under way. Written by the thread that leads, or by the supervisor's."""

    __slots__ = ("__weakref__",)

    def raise_error(self) -> NoReturn:
        """The call's error, as a new exception: what is raised refers to this call, which must not refer to
        it."""
        assert self.error is not None
        restore_cause(self.error)
        raise anew(self.error) from self.error.__cause__

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


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

    def note_error(self, call: Call, rank: int, error: Exception) -> None:
        """A rank has raised. The thread that reads, or the supervisor's; both may at once."""
        call.note_error(rank, error)
        self.failing[call.step] = call

    def keep(self, call: Call) -> None:
        self.kept[call.step] = call
        for step in list(self.kept)[:-_MAX_KEPT]:
            self.kept.pop(step, None)
