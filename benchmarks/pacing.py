"""Pacing: the gaps between messages, and a metronome that keeps them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_SHIFT = 10
_BURST = 20
_SILENCE = 40


def gaps(pattern: str, interval_s: float, jitter: float, n: int, seed: object) -> list[float]:
    """Seconds before each of `n` messages; the same arguments give the same gaps."""
    make = random.Random(f"{pattern} {interval_s} {jitter} {seed}")
    spread = PATTERNS[pattern]
    return [
        spread(number, n, make) * interval_s * (1 + make.uniform(-jitter, jitter))
        for number in range(n)
    ]


def _steady(number: int, n: int, make: random.Random) -> float:
    return 1.0


def _shift(number: int, n: int, make: random.Random) -> float:
    """Ten times as long from the middle on."""
    return 1.0 if number < n // 2 else float(_SHIFT)


def _bursts(number: int, n: int, make: random.Random) -> float:
    """A silence, then messages as fast as they are answered."""
    return 0.0 if number % _BURST else float(_SILENCE)


def _random(number: int, n: int, make: random.Random) -> float:
    """Exponentially distributed, as from many independent sources."""
    return make.expovariate(1.0)


def _alternating(number: int, n: int, make: random.Random) -> float:
    """Short and long in turn, as within a step of two calls and between steps."""
    return 1.9 if number % 2 else 0.1


PATTERNS: dict[str, Callable[[int, int, random.Random], float]] = {
    "steady": _steady,
    "shift": _shift,
    "bursts": _bursts,
    "random": _random,
    "alternating": _alternating,
}
"""Functions that return the gap before message `number` of `n`, in intervals."""


class Metronome:
    """Sleeps until the next message is due. A late message doesn't delay those after it, unless the next
    one is already due.
    """

    def __init__(self) -> None:
        self._due = time.perf_counter()
        self.cpu_ns = 0
        """CPU time that this thread has spent in wait()."""

    def wait(self, gap_s: float) -> None:
        began = time.thread_time_ns()
        now = time.perf_counter()
        self._due = max(self._due + gap_s, now)
        if self._due > now:
            time.sleep(self._due - now)
        self.cpu_ns += time.thread_time_ns() - began
