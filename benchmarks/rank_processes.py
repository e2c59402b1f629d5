"""RankProcesses: the rank processes of a peer, from their start to their end."""

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

END: Final = None
"""The request that ends a rank's loop. Compare it with `is`, because requests may be any objects."""

_END_S = 5.0
"""How long ranks may take to end after they have been asked to."""

Serve = Callable[..., None]
"""A rank's main function: serve(rank, link, *arguments). When it is ready it sends a report through
`link`, or None if it has nothing to report; then it answers requests until it gets END."""


class RankProcesses:
    """Main thread of the engine's process. stop() may be called at any time, also before start().

    `preload` names a module that takes seconds to import: ranks are then forked from a server process that
    has imported it and done nothing else.
    """

    def __init__(self, name: str, preload: str | None = None) -> None:
        self._name = name
        self._preload = preload
        self._processes: list[BaseProcess] = []
        self._links: list[Connection] = []
        self._ready = False

    def start(self, serve: Serve, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Starts one process for each tuple of arguments, and doesn't wait until they are ready."""
        context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
        if self._preload:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([self._preload])  # no effect if the server runs already
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
        """Waits until all ranks are ready; their reports in rank order. BenchmarkError if one has ended."""
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

    def stop(self, ask_to_end: Callable[[], None]) -> None:
        """Ends all processes, and kills those that don't end by themselves. None is left."""
        try:
            if self._ready:
                with contextlib.suppress(
                    Exception
                ):  # ranks that don't get the request are killed below
                    ask_to_end()
                deadline = time.monotonic() + _END_S
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
    """Processes started within never get Ctrl-C or SIGTERM: the engine ends them."""
    resource_tracker.ensure_running()  # started before, because it must not inherit the mask
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
