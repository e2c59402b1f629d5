"""Watchdog: vLLM's own, which writes a rank's stacks to a file when the rank makes no progress.

It runs in each rank, and writes to the folder that `--watchdog-config` names. Our stall report is another
one: the engine makes it, and it says which rank keeps a step waiting.
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
    """vLLM's watchdog of this process. We tell it of progress where `mp` does."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self._telling = threading.Lock()
        self._told = False
        start_thread(self._await_parent, name="mpspmd-watchdog")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the rank's wait for a request, in which a lack of progress is no stall."""
        with self._theirs.disable():
            yield
        self._theirs.feed()

    def feed(self) -> None:
        """Tells it that the rank makes progress."""
        self._theirs.feed()

    def run_ends(self) -> None:
        """Writes this rank's stacks when its run ends, once. Any thread; returns when they are written."""
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
    """The rank's watchdog. None if vLLM has none, or no folder for it."""
    if not has_watchdog() or not vllm_config.watchdog_config.dump_dir:
        return None
    from vllm.utils.watch_dog import start_watch_dog

    return Watchdog(start_watch_dog(f"worker_{rank}", vllm_config.watchdog_config, logger))
