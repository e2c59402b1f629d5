"""Signals to all processes of a program: as systemd, tini -g, Slurm and terminals send them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

import psutil
import pytest
from start_notes import without_start_notes
from traces import Traces, program

pytestmark = pytest.mark.timeout(120)

SHUT_DOWN = ["rank 0 is shut down", "rank 1 is shut down"]


def test_ranks_leave_signals_to_their_engine_at_each_moment(traces: Traces) -> None:
    done = traces.run("group_signals.py", "an_engine_that_goes_on")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["answer answer", *SHUT_DOWN]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_are_shut_down_when_the_engine_dies_of_a_signal_to_all(
    traces: Traces, number: signal.Signals
) -> None:
    done = traces.run(
        "group_signals.py", "an_engine_that_has_no_handler", str(int(number)), timeout_s=30
    )
    assert (done.returncode, done.stderr) == (-number, "")
    shut_down = [] if number == signal.SIGKILL else SHUT_DOWN
    assert sorted(done.stdout.splitlines()) == shut_down


def test_a_method_that_takes_long_is_interrupted_by_the_engines_own_sigterm(
    traces: Traces,
) -> None:
    done = traces.run("group_signals.py", "an_engine_that_insists", timeout_s=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == SHUT_DOWN


def test_a_launched_engine_drains_though_all_processes_get_sigterm(traces: Traces) -> None:
    """systemd signals every process of a unit, whatever its session."""
    script = program(["group_signals.py", "a_launched_engine"])[1:]
    with subprocess.Popen(
        program(["mpspmd-launch", "-n", "2", *script]),
        env=traces.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        lines = [launcher.stdout.readline()]
        time.sleep(0.2)
        for process in traces.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        lines += launcher.stdout.readlines()
        errors = without_start_notes(launcher.stderr.read())
        assert (launcher.wait(), errors) == (128 + signal.SIGTERM, "")
    words = [line.rpartition("] ")[2].strip() for line in lines]
    assert sorted(words) == sorted(["ready", "drained", *SHUT_DOWN])
