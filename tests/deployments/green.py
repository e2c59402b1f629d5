"""Programs in which gevent or eventlet has replaced something: `python green.py WHAT`.

Neither need be installed: what is put in its place here acts as theirs does.
"""

from __future__ import annotations

import os
import select
import sys
import threading

import mpspmd


class Worker(mpspmd.Worker):
    pass


def threads() -> None:
    """As gevent does it: a new "thread" runs in the one that has started it."""
    threading.Thread.start = lambda thread: thread.run()  # type: ignore[method-assign]
    threading.Thread.join = lambda thread, timeout=None: None  # type: ignore[method-assign]


def poll() -> None:
    del select.poll


def read() -> None:
    built_in = os.read
    os.read = lambda fd, size: built_in(fd, size)
    os.read.__module__ = "eventlet.green.os"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    mpspmd.Engine(Worker, world_size=1)
