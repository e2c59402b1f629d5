"""A run's janitor: nothing but its work's end ends it, and it leaves nothing of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from traces import Traces, program, skip_unless_it_works

pytestmark = pytest.mark.timeout(60)


def test_signals_to_all_processes_do_not_keep_it_from_its_work(traces: Traces) -> None:
    """The fixture `traces` sees what is left behind."""
    engine = subprocess.Popen(
        program(["janitors.py", "wait"]),
        env=traces.environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        (janitor,) = (
            each for each in traces.processes() if "janitor_process" in str(each.cmdline())
        )
        ends_itself = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGABRT}
        for number in signal.valid_signals() - ends_itself - {signal.SIGKILL, signal.SIGSTOP}:
            janitor.send_signal(number)
        time.sleep(0.1)  # they have come
        assert janitor.is_running()
        os.killpg(engine.pid, signal.SIGKILL)


def test_process_1_keeps_no_zombies_of_them_but_the_last(traces: Traces) -> None:
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    skip_unless_it_works(*prefix, "true")
    done = traces.run("janitors.py", prefix=prefix, timeout_s=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("1 0\n", "1 1\n")
