"""Shared memory that ranks only open stays; what they make goes with the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces import Traces


def _a_strangers(traces: Traces) -> str:
    """Its fixture sees if this is removed."""
    return next(
        path.name for path in Path("/dev/shm").glob("psm_stranger-*") if path.stat().st_size
    )


@pytest.mark.parametrize("script", ["attach.py", "attach_as_vllm.py"])
@pytest.mark.parametrize("end", ["", "unlink"])
def test_memory_that_a_rank_has_opened_stays_when_the_run_is_over(
    script: str, end: str, traces: Traces
) -> None:
    name = _a_strangers(traces)
    first = Path("/dev/shm", name).read_bytes()[0]
    done = traces.run(script, name, *filter(None, [end]))
    assert done.stdout == f"{[first, first]}\n", done.stderr
    # What a rank makes is still tracked: the tracker tells of what was left.
    told = "resource_tracker" in done.stderr
    assert told == (script == "attach.py" and end == ""), done.stderr
    assert "KeyError" not in done.stderr
