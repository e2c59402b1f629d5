"""Data of `blame`: the events that it judges, its verdicts, and what is known in between."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TypeAlias

from mpspmd.errors import RankDied

# What can happen.


@dataclass(frozen=True)
class Ready:
    """A rank has made its worker and waits for requests."""

    rank: int


@dataclass(frozen=True)
class StartRaised:
    """A rank couldn't make its worker; `cause` says why."""

    rank: int
    cause: str


@dataclass(frozen=True)
class Raised:
    """A rank raised an exception in a call. `awaited`: the call isn't done yet."""

    rank: int
    step: int
    method: str
    error: Exception
    awaited: bool


@dataclass(frozen=True)
class Exits:
    """A rank is about to end although the engine hasn't asked it to; `error` says why."""

    error: RankDied


@dataclass(frozen=True)
class Died:
    """A rank's process has ended. `pending`: the reason isn't complete. The kernel may yet show the exit
    status, or a message of the rank about its exit may yet arrive."""

    error: RankDied
    pending: bool = False
    clean: bool = False
    """Its exit code was 0: it ended in order."""


@dataclass(frozen=True)
class Reaped:
    """The reason of a death that was pending is complete now; `reason` says it in words."""

    rank: int
    reason: str
    clean: bool = False
    """As Died's."""


@dataclass(frozen=True)
class TimePassed:
    """`next_due` has come, or may have."""

    places: tuple[str, ...] = ()
    """What each rank is doing, in words, while the ranks start."""


@dataclass(frozen=True)
class ShutDown:
    """The engine shuts the run down: from now on a rank's end is no failure."""


Event: TypeAlias = Ready | StartRaised | Raised | Exits | Died | Reaped | TimePassed | ShutDown


# What is to be done.


@dataclass(frozen=True)
class Started:
    """All ranks are ready."""


@dataclass(frozen=True)
class StartFails:
    """The ranks can't be started. `causes` has the reason of each rank that failed."""

    causes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class CallFails:
    """The call of this step fails with `error`; the engine stays usable. The `failed` ranks raised."""

    step: int
    error: Exception
    failed: frozenset[int]


@dataclass(frozen=True)
class RunFails:
    """No call succeeds from now on. `rank` is to blame, or -1 for none. `call` is what it failed in."""

    error: Exception
    rank: int
    call: CallFails | None = None


@dataclass(frozen=True)
class Report:
    """No call is there to raise this error, so it is logged."""

    error: Exception


@dataclass(frozen=True)
class Explain:
    """A rank that was blamed without an exit status ended for this reason: it is logged."""

    rank: int
    reason: str


Verdict: TypeAlias = Started | StartFails | CallFails | RunFails | Report | Explain


# What is known.


class Phase(enum.Enum):
    """How far the run is."""

    STARTING = 1
    RUNNING = 2
    OVER = 3


@dataclass(frozen=True)
class Held:
    """A call in which ranks have raised, and whose error isn't decided yet."""

    method: str
    due: float
    errors: tuple[tuple[int, Exception], ...]
    """Each with its rank, in the order in which they came."""


@dataclass(frozen=True)
class Dying:
    """A death whose exit status isn't known yet."""

    error: RankDied
    due: float
    clean: bool | None = None
    """None: not known yet."""


@dataclass(frozen=True)
class State:
    """What has been learned so far. Never changed: `judge` returns a new one."""

    world_size: int
    fatal_methods: frozenset[str] = frozenset()
    """The run has failed when one of these fails on any rank, because the ranks' states may differ then."""
    start_due: float = math.inf
    """When the ranks must be ready."""
    start_limit: str = ""
    """That limit in words, for the error."""
    phase: Phase = Phase.STARTING
    ready: frozenset[int] = frozenset()
    start_failures: tuple[tuple[int, str], ...] = ()
    start_settled: float = math.inf
    """When the reasons of a failed start are complete enough to be told."""
    held: tuple[tuple[int, Held], ...] = ()
    """By step."""
    dying: tuple[Dying, ...] = ()
    dead: frozenset[int] = frozenset()
    """The ranks whose deaths have been told."""
    unexplained: frozenset[int] = frozenset()
    """The ranks that were blamed before their exit status was known."""
