"""Shared memory that a rank attaches to stays when the rank ends: its maker removes it."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from multiprocessing import resource_tracker, shared_memory
from typing import Any

_MARK = "_mpspmd_attached"


class _Tracker(threading.local):
    """Up to Python 3.12 it replaces the module `resource_tracker` in `multiprocessing.shared_memory`. A
    thread registers nothing while it has set `attaching`."""

    attaching = False

    def register(self, name: str, rtype: str) -> None:
        if not self.attaching:
            resource_tracker.register(name, rtype)

    def unregister(self, name: str, rtype: str) -> None:
        resource_tracker.unregister(name, rtype)


def untrack_attached_memory() -> None:
    """In a rank, once: multiprocessing's resource tracker no longer learns of `SharedMemory(name=...)`.

    When the run's processes have ended, the tracker removes all that it knows, even what another program
    has made. Python 3.13 has `track=False` for this. Memory that the rank creates is still tracked.
    """
    memory: Any = shared_memory.SharedMemory
    make, unlink = memory.__init__, memory.unlink
    tracker = _Tracker()

    @functools.wraps(make)
    def make_or_attach(
        self: Any, name: str | None = None, create: bool = False, size: int = 0, **options: Any
    ) -> None:
        setattr(self, _MARK, not create)
        if sys.version_info >= (3, 13):
            options.setdefault("track", create)
            make(self, name, create, size, **options)
            return
        tracker.attaching = not create
        try:
            make(self, name, create, size, **options)
        finally:
            tracker.attaching = False

    @functools.wraps(unlink)
    def unlink_untracked(self: Any) -> None:
        if not getattr(self, _MARK, False):
            unlink(self)
            return
        # unlink() unregisters the memory, and the tracker reports an error for memory that it doesn't know.
        resource_tracker.register(self._name, "shared_memory")
        self._track = True
        try:
            unlink(self)
        except BaseException:
            with contextlib.suppress(OSError):
                resource_tracker.unregister(self._name, "shared_memory")
            raise

    memory.__init__, memory.unlink = make_or_attach, unlink_untracked
    if sys.version_info < (3, 13):
        module: Any = shared_memory
        module.resource_tracker = tracker
