"""Peer: what every transport can do."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

Repliers: TypeAlias = Literal["all", "rank0"]

MAX_RANKS: Final = 64  # mpspmd's limit


class _Silent:
    """The type of SILENT."""


SILENT: Final = _Silent()
"""What a responder returns when its rank doesn't reply. Compare it with `is`."""

Responder: TypeAlias = Callable[[object], object]
"""A rank's answer to a request, or SILENT."""


@dataclass(frozen=True)
class Setup:
    """What a transport has to do. The engine and all ranks know it before the first message."""

    ranks: int
    reply: Repliers = "all"
    answer: object = None
    """What a rank replies to any request."""
    every: int = 1
    """Of requests that are bytes, ranks reply only to every `every`-th; to all others they always reply."""
    timed: bool = False
    """A request is a list of seconds, one for each rank: how long it works (sleeps) before it replies with
    time.perf_counter_ns(). All processes of a machine share that clock."""

    @property
    def repliers(self) -> range:
        """The ranks that reply. The others get and decode the requests too."""
        return range(self.ranks if self.reply == "all" else 1)

    def responder(self, rank: int) -> Responder:
        """The function that a rank's loop calls with each request but END."""
        answer = self.answer
        if rank not in self.repliers:
            return lambda request: SILENT
        if self.timed:
            return lambda request: _work(request, rank)
        if self.every == 1:
            return lambda request: answer
        return _Counting(answer, self.every)


def _work(request: object, rank: int) -> int:
    assert isinstance(request, list)
    if (seconds := request[rank]) > 0:
        time.sleep(seconds)
    return time.perf_counter_ns()


class _Counting:
    def __init__(self, answer: object, every: int) -> None:
        self._answer = answer
        self._every = every
        self._requests = 0

    def __call__(self, request: object) -> object:
        if not isinstance(request, bytes):
            return self._answer
        self._requests += 1
        return SILENT if self._requests % self._every else self._answer


class Peer(ABC):
    """A transport from this process, the engine, to `setup.ranks` others, the ranks, and back.

    Main thread of the engine's process. It is started once and closed once; close() is called also when
    start() was interrupted or has failed.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    max_ranks: ClassVar[int] = MAX_RANKS

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """Starts and allocates nothing."""

    @abstractmethod
    def start(self) -> None:
        """Returns when requests can be sent to every rank."""

    @property
    @abstractmethod
    def pids(self) -> Sequence[int]:
        """The ranks' process ids in rank order, then those of other processes of this transport."""

    @abstractmethod
    def send(self, request: object) -> None:
        """Sends `request`, any object, to every rank."""

    @abstractmethod
    def receive(self) -> list[object]:
        """Waits for the replies of all ranks that reply; the decoded replies, in any order."""

    @abstractmethod
    def close(self) -> None:
        """Ends the processes, which aren't stopped at that time, and frees what start() took."""

    def round_trip(self, request: object) -> list[object]:
        """Sends a request that ranks reply to, and waits for the replies."""
        self.send(request)
        return self.receive()

    def time_round_trips(self, request: object, messages: int, limit_ns: int) -> list[int]:
        """Makes `messages` round trips, or fewer when they take longer than `limit_ns`; the nanoseconds of
        each. A time is from the end of the round trip before, so it has the clock and the loop in it, about
        0.1 µs.
        """
        round_trip = self.round_trip
        taken: list[int] = []
        for _ in timed(taken, messages, limit_ns):
            round_trip(request)
        return taken


def timed(taken: list[int], times: int, limit_ns: int) -> Iterator[None]:
    """Yields `times` times, or until `limit_ns` have passed. Adds each pass's time to `taken`."""
    clock = time.perf_counter_ns
    began = clock()
    end = began + limit_ns
    for _ in range(times):
        yield
        ended = clock()
        taken.append(ended - began)
        began = ended
        if ended > end:
            return
