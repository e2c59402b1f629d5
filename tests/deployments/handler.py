"""A program whose signal handler calls the engine while a request of its own thread waits for space."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import mpspmd


class Slow(mpspmd.Worker):
    def wait_for(self, path: Path) -> None:
        while not path.exists():
            time.sleep(0.01)

    def size(self, data: bytes) -> int:
        return len(data)


def main(engine: mpspmd.Engine) -> None:
    results: list[Any] = []
    go, ring_bytes = Path("go"), engine.stats().ring_bytes

    def handle(*_: object) -> None:
        try:
            results.append(engine.call("size", (b"inner",), timeout=20))
        except RuntimeError as error:
            results.append(str(error).partition(" while ")[0])

    def interrupt(thread: int) -> None:
        """When the ring is full: then the request waits."""
        while engine.stats().ranks[0].unread_bytes < ring_bytes // 2:
            time.sleep(0.01)
        signal.pthread_kill(thread, signal.SIGALRM)
        while not results:
            time.sleep(0.01)
        go.touch()

    signal.signal(signal.SIGALRM, handle)
    data = bytes(ring_bytes * 2)
    waiting = engine.steps.send("wait_for", (go,))
    threading.Thread(target=interrupt, args=(threading.get_ident(),)).start()
    assert engine.call("size", (data,), timeout=40) == [len(data)]
    engine.steps.outcome(waiting)
    go.unlink()
    print(*results, flush=True)
    assert engine.call("size", (b"next",), timeout=20) == [4]


if __name__ == "__main__":
    mpspmd.run(Slow, main, world_size=1)
