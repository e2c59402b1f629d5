"""A run fails and ends as ever when standard error is a full pipe that nobody reads."""

from __future__ import annotations

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("what", "printed"),
    [
        ("a_death", ["exit code 3", "called back", "ranks are gone"]),
        ("faults_that_nobody_waits_for", ["failed"]),
        ("a_callback_that_raises", ["called back"]),
        ("ranks_that_must_be_killed", []),
    ],
)
def test_whom_a_failure_concerns_is_told_and_the_run_ends(
    traces: Traces, what: str, printed: list[str]
) -> None:
    done = traces.run("unread.py", what, timeout_s=60, SHUTDOWN="raises")
    assert (done.returncode, done.stdout.splitlines()) == (0, [*printed, "shut down"])
