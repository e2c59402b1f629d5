"""Leaving a process without finalizing the interpreter, which takes seconds with torch in it."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading


def leave(code: int) -> None:
    """Ends this process with an exit code, or with minus the number of a signal. Doesn't return.

    What a normal exit would do is done, in the same order: threads that aren't daemons, and work that was
    given to a ThreadPoolExecutor, are waited for; then come atexit functions, multiprocessing's finalizers
    among them, and the flushing of the standard streams. Main thread only. Who can't wait for ever for a
    thread kills this process.
    """
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        with contextlib.suppress(BaseException):
            step()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if code < 0:
        # So that whoever reaps this process sees what ended it.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        threading.Event().wait(1)
    os._exit(code if code >= 0 else 128 - code)
