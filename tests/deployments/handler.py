"""A program whose signal handler calls the engine while a request of its own thread waits for space."""

from __future__ import annotations

import signal
import time
from typing import Any

import mpspmd


class Slow(mpspmd.Worker):
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def size(self, data: bytes) -> int:
        return len(data)


def main(engine: mpspmd.Engine) -> None:
    results: list[Any] = []

    def handle(*_: object) -> None:
        try:
            results.append(engine.call("size", (b"inner",), timeout=20))
        except RuntimeError as error:
            results.append(str(error).partition(" while ")[0])

    signal.signal(signal.SIGALRM, handle)
    data = bytes(engine.stats().ring_bytes * 2)
    asleep = engine.steps.send("sleep", (1.0,))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    assert engine.call("size", (data,), timeout=20) == [len(data)]
    engine.steps.outcome(asleep)
    print(*results, flush=True)
    assert engine.call("size", (b"next",), timeout=20) == [4]


if __name__ == "__main__":
    mpspmd.run(Slow, main, world_size=1)
