"""RankProcesses: the spawned processes of a peer, from their start to their end."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.parent import die_with_parent
from benchmarks.signals import uninterrupted

LEAVE: Final = None
"""The request that ends a rank's loop. Compared with `is`, which works with any request."""

_LEAVE_S = 5.0
"""How long ranks may take to end when they have been asked to."""

Serve = Callable[..., None]
"""A rank's main function: serve(rank, link, *arguments). When it is ready it sends its report
through `link`, None if there is nothing to report; then it answers requests until it gets LEAVE."""


class RankProcesses:
    """Main thread of the engine's process. May be stopped at any point, started or not.

    With `preload`, a module that takes seconds to import, ranks are forked from a process that has
    imported it once for all, and otherwise has done nothing.
    """

    def __init__(self, name: str, preload: str | None = None) -> None:
        self._name = name
        self._preload = preload
        self._processes: list[BaseProcess] = []
        self._links: list[Connection] = []
        self._ready = False

    def start(self, serve: Serve, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Starts one process for each tuple of arguments, and doesn't wait for them."""
        context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
        if self._preload:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([self._preload])  # unless that process is there already
        for rank, extra in enumerate(arguments):
            ours, theirs = context.Pipe(duplex=False)
            self._links.append(ours)
            process = context.Process(
                target=_main, args=(serve, rank, theirs, *extra), name=f"{self._name}-{rank}"
            )
            with uninterrupted(), _signals_blocked():
                process.start()
                self._processes.append(process)
            theirs.close()

    def reports(self) -> list[Any]:
        """What each rank has sent when it was ready, in rank order. BenchmarkError if one ended."""
        waiting = {link: rank for rank, link in enumerate(self._links)}
        reports: dict[int, Any] = {}
        while waiting:
            for link in connection.wait(list(waiting)):
                assert isinstance(link, Connection)
                rank = waiting.pop(link)
                try:
                    reports[rank] = link.recv()
                except EOFError:
                    raise BenchmarkError(
                        f"rank {rank} of {self._name} ended before it was ready"
                    ) from None
        self._ready = True
        return [report for _, report in sorted(reports.items())]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def stop(self, ask_to_leave: Callable[[], None]) -> None:
        """Ends all processes, gently if they are ready; none is left when it returns."""
        try:
            if self._ready:
                with contextlib.suppress(Exception):  # who doesn't get it is killed
                    ask_to_leave()
                deadline = time.monotonic() + _LEAVE_S
                for process in self._processes:
                    process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in self._processes:
                process.kill()
            for process in self._processes:
                process.join()
            for link in self._links:
                link.close()


def _main(serve: Serve, rank: int, link: Connection, *arguments: Any) -> None:
    die_with_parent()
    serve(rank, link, *arguments)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started within has Ctrl-C blocked for good: its end is the engine's business."""
    resource_tracker.ensure_running()  # must not inherit the mask
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
