"""Exits a process without finalizing the interpreter, which takes seconds if torch is loaded."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading


def exit_quickly(code: int) -> None:
    """Ends this process with an exit code, or by a signal if `code` is minus its number. Doesn't return.

    Main thread only. Does what a normal exit does, in the same order: it waits for threads that aren't
    daemons and for the work of each ThreadPoolExecutor, calls atexit functions and multiprocessing's
    finalizers, and flushes the standard streams. A thread that never ends makes it wait for ever.
    """
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        with contextlib.suppress(BaseException):
            step()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if code < 0:
        # The parent must see the signal in the exit status.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        threading.Event().wait(1)
    os._exit(code if code >= 0 else 128 - code)
