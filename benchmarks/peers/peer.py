"""Peer: what every transport can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

Repliers: TypeAlias = Literal["all", "rank0"]


@dataclass(frozen=True)
class Setup:
    """What a transport is to do; known to the engine and to every rank before the first message."""

    ranks: int
    reply: Repliers
    answer: object = None
    """What a rank replies to any request."""

    @property
    def repliers(self) -> range:
        """The ranks that reply. The others get and decode the requests too."""
        return range(self.ranks if self.reply == "all" else 1)


class Peer(Protocol):
    """A transport from this process, the engine, to `setup.ranks` others, the ranks, and back.

    Main thread of the engine's process. An object is made, started once and closed once; close() is
    called also when start() was interrupted or has failed.
    """

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, setup: Setup) -> None:
        """Holds no process and no other resource yet."""

    def start(self) -> None:
        """Returns when every rank can be sent to."""

    @property
    def pids(self) -> Sequence[int]:
        """All processes besides the engine's that work, or wait, for messages."""

    def round_trip(self, request: object) -> None:
        """Sends `request`, pickled, to every rank; returns when all that reply have, unpickled."""

    def close(self) -> None:
        """Ends the processes, which aren't stopped by a signal now, and frees what start() took."""
