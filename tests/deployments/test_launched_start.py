"""What mpspmd-launch says when the engine fails before it has ranks."""

from __future__ import annotations

import pytest
from traces import Traces, program

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("before", "world_size", "cause"),
    [
        ("", ["5"], "ConfigError: world_size=5: mpspmd-launch has started 1 rank(s); give it -n 5"),
        ("ulimit -f 1024;", [], "SegmentError: "),
    ],
)
def test_an_engine_that_cannot_start_is_not_said_to_be_none(
    traces: Traces, before: str, world_size: list[str], cause: str
) -> None:
    script = program(["echo.py"])[1:]
    done = traces.run("mpspmd-launch", "-n", "1", *script, *world_size, before=before)
    assert done.returncode == 1
    _, _, summary = done.stderr.partition("mpspmd-launch: ")
    assert "echo.py failed: the engine (pid " in summary
    assert f"\n{cause}" in summary, done.stderr
    assert "--ranks-only" not in summary


def test_a_program_without_an_engine_is_told_so(traces: Traces) -> None:
    # The rank ends later than the engine, which alone decides.
    program = 'test -z "$RANK" || sleep 20; exit 1'
    done = traces.run("mpspmd-launch", "-n", "1", "--no-python", "sh", "-c", program)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "mpspmd-launch: sh has not called mpspmd.run(); for a program without an engine give "
        "--ranks-only\n"
    )
