"""Finding: what a check of mpspmd-doctor yields."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mpspmd.config import RuntimeConfig


class Level(enum.Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    SLOW = "slow"
    """It will work, but slower than it could."""
    FAILS = "fails"
    """Something will fail."""


@dataclass(frozen=True)
class Finding:
    """What was checked, what was found, and what to do."""

    level: Level
    subject: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Plan:
    """The run that the user plans."""

    ranks: int
    config: RuntimeConfig


ok = partial(Finding, Level.OK)
note = partial(Finding, Level.NOTE)
slow = partial(Finding, Level.SLOW)
fails = partial(Finding, Level.FAILS)

Check = Callable[[Plan], Iterator[Finding]]
