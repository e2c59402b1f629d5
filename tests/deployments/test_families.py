"""Engines beside others who wait for children, and in processes that are children themselves."""

from __future__ import annotations

import signal

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(120)

SHUT_DOWN = "a worker is shut down\n"


@pytest.mark.parametrize("way", ["ignores", "reaps"])
def test_ranks_that_another_reaps_end_by_themselves_and_nobody_is_killed(
    traces: Traces, way: str
) -> None:
    done = traces.run("family.py", "a_program_that", way, "works")
    assert (done.returncode, done.stderr) == (0, "")  # a rank that is killed is told of there
    assert done.stdout == 2 * SHUT_DOWN + "worked\n"


@pytest.mark.parametrize("way", ["ignores", "reaps"])
def test_a_forgotten_engine_whose_ranks_another_reaps_ends_with_its_program(
    traces: Traces, way: str
) -> None:
    done = traces.run("family.py", "a_program_that", way, "forgets", timeout_s=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "worked\n" + 2 * SHUT_DOWN


@pytest.mark.parametrize("way", ["ignores", "reaps"])
def test_the_death_of_a_rank_that_another_reaps_is_reported(traces: Traces, way: str) -> None:
    done = traces.run("family.py", "a_program_that", way, "is_killed", timeout_s=30)
    assert done.returncode == 0, done.stderr
    reasons = ("killed by SIGKILL", "its exit status was taken by another part of this program")
    assert any(f"rank 1: {reason}" in done.stdout for reason in reasons), done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("what", ["a_pool", "an_executor"])
def test_an_engine_works_in_a_process_of_a_pool(traces: Traces, what: str, method: str) -> None:
    done = traces.run("family.py", what, method)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 4 * SHUT_DOWN + "worked worked\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_engine_works_in_a_daemonic_process(traces: Traces, method: str) -> None:
    done = traces.run("family.py", "a_daemon", method)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 2 * SHUT_DOWN + "worked\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_daemonic_process_that_its_parent_ends(
    traces: Traces, number: signal.Signals
) -> None:
    done = traces.run("family.py", "a_daemon_that_its_parent_ends", str(int(number)))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ended by {int(number)}\n" in done.stdout


def test_nothing_is_left_of_a_daemonic_process_that_leaves_at_once(traces: Traces) -> None:
    done = traces.run("family.py", "a_daemon_that_leaves_at_once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "left with 3\n" in done.stdout


@pytest.mark.parametrize(
    ("then", "printed"),
    [
        ("uses_it", ""),
        ("unwinds", ""),
        ("makes_its_own", 2 * SHUT_DOWN + "worked\n"),
    ],
)
def test_a_fork_has_no_part_in_its_parents_engine(traces: Traces, then: str, printed: str) -> None:
    done = traces.run("family.py", "a_fork", then, timeout_s=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{printed}status 0\n{2 * SHUT_DOWN}worked\n"
