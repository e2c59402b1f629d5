"""Serving: the threads that work at one end of the connection between nodes: a bridge's or a follower's."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpspmd.bridge.sockets import HeadSocket, NodeSocket
from mpspmd.threads import start_thread

_RECEIVE_S = 0.2
"""How long the thread that receives waits before it checks whether the run is over."""


class Serving:
    """Threads that take turns by `lock`."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        """A thread that fails calls `failed`, without the lock. It must end the run: without the thread the
        ranks would wait for ever."""
        self.lock = threading.Lock()
        self.is_closing = False
        self._failed = failed
        self._threads: list[threading.Thread] = []

    def start(self, serve: Callable[[], None], name: str) -> None:
        """Starts a thread, which returns soon when `is_closing` is set."""
        self._threads.append(start_thread(self._guard, serve, name=f"mpspmd-{name}"))

    def start_receiving(self, socket: HeadSocket | NodeSocket, take: Callable[[], None]) -> None:
        """Starts the thread that calls `take`, with the lock, when frames may have come."""

        def receive() -> None:
            while not self.is_closing:
                if socket.wait(_RECEIVE_S):
                    with self.lock:
                        take()

        self.start(receive, "frames")

    def close(self) -> None:
        """Waits for the threads. The caller has set `is_closing`, and has woken those that wait."""
        for thread in self._threads:
            thread.join(1.0)

    def _guard(self, serve: Callable[[], None]) -> None:
        try:
            serve()
        except BaseException as error:
            self._failed(error)
