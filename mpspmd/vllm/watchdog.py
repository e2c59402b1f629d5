"""Watchdog: vLLM's own, which writes a rank's stacks to a file when the rank makes no progress.

Our stall report says which rank keeps a step waiting, and needs an engine that asks; this one is in each
rank, and writes where `--watchdog-config` says.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

from vllm.logger import init_logger

from mpspmd.threads import start_thread
from mpspmd.vllm.compat import has_watchdog

logger = init_logger(__name__)


class Watchdog:
    """vLLM's watchdog of this process, fed as `mp` feeds it."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self._telling = threading.Lock()
        self._told = False
        start_thread(self._await_parent, name="mpspmd-watchdog")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the rank waits for a request, silence is no stall."""
        with self._theirs.disable():
            yield
        self._theirs.feed()

    def feed(self) -> None:
        self._theirs.feed()

    def run_ends(self) -> None:
        """Writes down, once, where this rank is when its engine leaves it. Any thread; returns when it is
        written."""
        with self._telling:
            if not self._told:
                self._told = True
                self._theirs.handle_failure("shutdown")

    def _await_parent(self) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            connection.wait([parent.sentinel])
            self.run_ends()


def start_watchdog(vllm_config: Any, rank: int) -> Watchdog | None:
    """The rank's watchdog, or None where vLLM has none, or no folder to write to."""
    if not has_watchdog() or not vllm_config.watchdog_config.dump_dir:
        return None
    from vllm.utils.watch_dog import start_watch_dog

    return Watchdog(start_watch_dog(f"worker_{rank}", vllm_config.watchdog_config, logger))
