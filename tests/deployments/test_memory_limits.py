"""Limits of a process's memory and of the size of its files are told with their own remedies."""

from __future__ import annotations

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("option", ["-v", "-d"])
def test_too_little_memory_for_threads_names_the_limit(traces: Traces, option: str) -> None:
    limits = {"-v": "160000", "-d": "100000"}
    done = traces.run("echo.py", "4", before=f"ulimit {option} {limits[option]};")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: an engine with 4 rank(s) needs"), last
    assert f"(ulimit {option})" in last
    assert f"(ulimit {option} unlimited)" in last


def test_a_limit_of_a_files_size_has_nothing_to_do_with_docker(traces: Traces) -> None:
    done = traces.run("echo.py", "1", before="ulimit -f 1024;")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: shared memory can't be had."), last
    assert "ulimit -f unlimited" in last
    assert "docker" not in last
