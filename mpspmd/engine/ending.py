"""Ending: ends a run, for the user, for a failure's callback, or at the end of the program."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import ExitStack
from multiprocessing import util as multiprocessing_util

from mpspmd.control.messages import Shutdown
from mpspmd.engine.ranks import Ranks
from mpspmd.engine.reader import Reader
from mpspmd.engine.run_files import RunFiles
from mpspmd.engine.supervisor import Supervisor
from mpspmd.processes.signals import signals_deferred
from mpspmd.transport.channel import ChannelSegments


class Ending:
    """Any thread. It refers to what an engine owns, and not to the engine, which can so be dropped."""

    def __init__(
        self,
        made: ExitStack,
        segments: ChannelSegments,
        files: RunFiles,
        ranks: Ranks,
        reader: Reader,
        supervisor: Supervisor,
    ) -> None:
        """`made` closes all that was made for the run, when the ranks have ended."""
        self._made = made
        self._segments = segments
        self._files = files
        self._ranks = ranks
        self._reader = reader
        self._supervisor = supervisor
        # A signal's handler may shut down in the middle of a shutdown.
        self._lock = threading.RLock()
        self.has_begun = False
        self._pid = os.getpid()
        # At exit, before multiprocessing joins its children.
        self._at_exit = multiprocessing_util.Finalize(None, self.shutdown, exitpriority=100)

    def shutdown(self, timeout_s: float | None = None) -> None:
        """See Engine.shutdown. More than once does nothing."""
        if not self._supervisor.is_this_thread:
            with self._lock:
                self._shut_down(timeout_s)
        elif self._lock.acquire(blocking=False):  # whoever has it waits for this thread
            try:
                self._shut_down(timeout_s)
            finally:
                self._lock.release()
        # Without the lock: a callback may shut down, too.
        self._reader.join()

    def _shut_down(self, timeout_s: float | None) -> None:
        with signals_deferred():
            if self.has_begun:
                return
            self.has_begun = True
            with self._made:
                self._end(timeout_s)
            self._at_exit.cancel()

    def _end(self, timeout_s: float | None) -> None:
        self._supervisor.shut_down()
        # Close these first: to remove a folder takes a descriptor, and all may be in use.
        self._segments.close()
        for rank in range(self._ranks.world_size):
            self._files.plane.send(rank, Shutdown())
        try:
            if not self._supervisor.all_ready:
                # A worker that isn't made yet has nothing to shut down.
                self._ranks.end(0.0)
            elif self._supervisor.has_failed:
                self._ranks.end_survivors()
            else:
                self._ranks.end(self._ranks.patience_s if timeout_s is None else timeout_s)
        finally:
            self._supervisor.close()

    def dropped(self) -> None:
        """Nobody refers to the engine any more. The garbage collector calls this, in any thread and at any
        moment: the supervisor's thread does the work."""
        if self.has_begun or self._pid != os.getpid():
            return
        self._supervisor.drop(self.shutdown)
        pids = ", ".join(process.pid_and_node for process in self._ranks.processes)
        warnings.warn(
            f"an engine was dropped without shutdown(); its ranks (pids {pids}) are ended",
            ResourceWarning,
            stacklevel=2,
        )

    def become_inherited(self) -> None:
        """In a process that has just been forked: the run is its parent's."""
        self._lock = threading.RLock()  # a thread of the parent may hold the old one
        self.has_begun = True
        self._ranks.close_copies()
        self._files.close_copies()
