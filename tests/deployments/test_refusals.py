"""Where the system refuses calls by which processes are watched and signalled."""

from __future__ import annotations

import sys

import pytest
from traces import HERE, Traces, program, skip_unless_it_works

pytestmark = pytest.mark.timeout(120)

REFUSING = [sys.executable, str(HERE / "refusing.py")]
PIDFDS = "pidfd_open,pidfd_send_signal"


def refusing(calls: str, error: str = "EPERM") -> list[str]:
    """What runs a command without these system calls. Skips the test where that can't be had."""
    prefix = [*REFUSING, calls, error]
    skip_unless_it_works(*prefix, "true")
    return prefix


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize(
    ("what", "printed"),
    [("works", 2 * "a worker is shut down\n" + "worked\n"), ("is_killed", None)],
)
def test_ranks_are_watched_and_ended_without_pidfds(
    traces: Traces, error: str, what: str, printed: str | None
) -> None:
    prefix = refusing(PIDFDS, error)
    done = traces.run("family.py", "a_program_that", "waits_for_nobody", what, prefix=prefix)
    if printed is None:
        assert "rank 1: killed by SIGKILL" in done.stdout, done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


@pytest.mark.parametrize("way", ["ignores", "reaps"])
def test_ranks_that_another_reaps_end_by_themselves_without_pidfds(
    traces: Traces, way: str
) -> None:
    done = traces.run("family.py", "a_program_that", way, "works", prefix=refusing(PIDFDS))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("calls", [PIDFDS, "pidfd_send_signal"])
def test_a_launched_run_works_without_pidfds(traces: Traces, calls: str) -> None:
    script = program(["echo.py"])[1:]
    done = traces.run("mpspmd-launch", "-n", "2", *script, prefix=refusing(calls))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_rank_that_must_be_killed_is_killed_without_pidfds(traces: Traces) -> None:
    done = traces.run("group_signals.py", "an_engine_that_insists", prefix=refusing(PIDFDS))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["rank 0 is shut down", "rank 1 is shut down"]


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", ["set_robust_list", "eventfd2"])
def test_a_system_that_cannot_tell_of_deaths_is_refused_with_the_remedy(
    traces: Traces, call: str, error: str
) -> None:
    done = traces.run("echo.py", "1", prefix=refusing(call, error))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: ranks can't be watched: ")
    assert "refuses the system call set_robust_list or eventfd2" in last


@pytest.mark.parametrize(
    ("calls", "level", "words"),
    [
        ("pidfd_open", "note", "pidfd_open is refused"),
        ("pidfd_send_signal", "note", "pidfd_send_signal is refused"),
        ("set_robust_list", "fails", "ranks can't be watched"),
        ("eventfd2", "fails", "ranks can't be watched"),
    ],
)
def test_doctor_tells_of_it(traces: Traces, calls: str, level: str, words: str) -> None:
    done = traces.run("mpspmd-doctor", "--seconds", "0", "--ranks", "1", prefix=refusing(calls))
    (line,) = (line for line in done.stdout.splitlines() if words in line)
    assert line.startswith(level)
    assert done.returncode == (level == "fails"), done.stdout


def test_doctor_tells_that_it_is_process_1(traces: Traces) -> None:
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    skip_unless_it_works(*prefix, "true")
    done = traces.run("mpspmd-doctor", "--seconds", "0", "--ranks", "1", prefix=prefix)
    (line,) = (line for line in done.stdout.splitlines() if "process 1" in line)
    assert line.startswith("note")
    assert "docker run --init" in done.stdout
