"""The part of a process in a run that mpspmd-launch has started: a rank, or the engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from mpspmd.errors import MpSpmdError, RankDied, RankError, text_of
from mpspmd.launch import handover
from mpspmd.processes.launch import Launch
from mpspmd.processes.process import wait_for_end_of_parent
from mpspmd.threads import start_thread

ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
_LAUNCHER_GRACE_S = 5.0
"""How long an engine may take to end after its launcher has ended."""


def be_a_rank(launch: Launch) -> NoReturn:
    """Serves the engine until it shuts down, and then ends this process."""
    start = handover.receive(launch)
    start.report_start_failure = FailureReport().write
    start.begins_lines = False
    start()
    raise AssertionError("a rank's process has returned")


class FailureReport:
    """Writes why this process fails into its error file, in torch.distributed.elastic's format.

    Only the first cause is written. Any thread.
    """

    def __init__(self) -> None:
        self._path = os.environ.get(ERROR_FILE_VARIABLE)
        self._once = threading.Lock()

    def write(self, error: BaseException) -> None:
        """Writes at once, because the launcher may end this process before `main` gets the error."""
        if not self._path or not self._once.acquire(blocking=False):
            return
        message = {
            "message": f"{type(error).__qualname__}: {text_of(error)}",
            "extraInfo": {
                # The message of one of our errors has the rank's traceback, which matters more.
                "py_callstack": ""
                if isinstance(error, MpSpmdError)
                else "".join(traceback.format_exception(error)).rstrip(),
                "timestamp": str(int(time.time())),
            },
        }
        rank = error.rank if isinstance(error, RankDied | RankError) else None
        died = isinstance(error, RankDied)
        with contextlib.suppress(OSError), open(self._path, "w", encoding="utf-8") as file:
            json.dump({"message": message, "rank": rank, "died": died}, file)


@contextlib.contextmanager
def around_engine(launch: Launch) -> Iterator[FailureReport]:
    """Around all that a script does as the engine: reports a failure, and ends it with its launcher."""
    report = FailureReport()
    with contextlib.suppress(OSError):
        launch.untaken.unlink()
    start_thread(_end_with, os.getppid(), name="mpspmd-launcher")
    try:
        yield report
    except Exception as error:
        report.write(error)
        raise


def _end_with(launcher_pid: int) -> None:
    wait_for_end_of_parent(launcher_pid)
    # As Ctrl-C would end it; SIGTERM if SIGINT is ignored, as in background jobs of a shell script. It is
    # sent to the main thread, because only a signal to that thread surely wakes it up.
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM if ignored else signal.SIGINT)
    time.sleep(_LAUNCHER_GRACE_S)
    os._exit(1)
