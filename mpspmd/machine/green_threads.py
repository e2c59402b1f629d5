"""Green threads, by which gevent and eventlet may have replaced threads."""

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
    """Raises ConfigError if the threads of this process are green threads, or can't wait for descriptors.

    All green threads stop while one waits for a message in C, because it doesn't yield to gevent's or
    eventlet's loop: the process would hang.
    """
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()), daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return  # no thread can be started: check_room() will raise
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
