"""Green threads, which gevent and eventlet may have put in the place of threads."""

from __future__ import annotations

import os
import select
import threading

from mpspmd.errors import ConfigError

_REMEDY = (
    "keep these functions as they are, by gevent.monkey.patch_all(thread=False) or "
    "eventlet.monkey_patch(thread=False, select=False, os=False), or make the engine in a process of its "
    "own that isn't patched"
)


def refuse_green_threads() -> None:
    """ConfigError when this process's threads are none, or when they can't wait for descriptors.

    A green thread that waits for a message without telling gevent's or eventlet's loop stops all others,
    and so this process for ever.
    """
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()), daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return  # there is no room for one: what checks that says so
    thread.join()
    if ids == [threading.get_native_id()]:
        raise ConfigError(
            "the threads of this process are green threads (gevent, eventlet), in which an engine or a "
            f"rank would wait for ever: {_REMEDY}"
        )
    if not hasattr(select, "poll") or str(os.read.__module__).startswith("eventlet."):
        raise ConfigError(
            f"select.poll or os.read is eventlet's, and can't be used in other threads: {_REMEDY}"
        )
