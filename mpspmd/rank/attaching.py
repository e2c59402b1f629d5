"""Shared memory of others that a rank opens: it stays when the rank ends."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from multiprocessing import resource_tracker, shared_memory
from typing import Any

_MARK = "_mpspmd_attached"


class _Tracker(threading.local):
    """Stands in `multiprocessing.shared_memory` for the module `resource_tracker`, up to Python 3.12. It
    passes everything on, except what a thread opens that has set `attaching`."""

    attaching = False

    def register(self, name: str, rtype: str) -> None:
        if not self.attaching:
            resource_tracker.register(name, rtype)

    def unregister(self, name: str, rtype: str) -> None:
        resource_tracker.unregister(name, rtype)


def leave_what_is_attached() -> None:
    """In a rank, once: from now on `SharedMemory(name=...)` is not told to multiprocessing's resource
    tracker.

    The tracker removes what it knows when the run's processes are gone, also if another program made it.
    Python 3.13 has `track=False` for that; it is the default here. What a rank makes is tracked as ever.
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
    def unlink_and_forget(self: Any) -> None:
        if not getattr(self, _MARK, False):
            unlink(self)
            return
        # Whoever made it may have told the tracker, the same one. unlink() takes that back, and what isn't
        # there can't be taken back.
        resource_tracker.register(self._name, "shared_memory")
        self._track = True
        try:
            unlink(self)
        except BaseException:
            with contextlib.suppress(OSError):
                resource_tracker.unregister(self._name, "shared_memory")
            raise

    memory.__init__, memory.unlink = make_or_attach, unlink_and_forget
    if sys.version_info < (3, 13):
        module: Any = shared_memory
        module.resource_tracker = tracker
