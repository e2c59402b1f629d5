"""What EngineCore reports goes into its front end's memory, and into nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(60)


def test_the_front_end_is_told(traces: Traces) -> None:
    done = traces.run("engine_faults.py")
    assert done.stdout == "0 rank 1 (pid 2) died in execute_model (step 3): killed by SIGKILL\n"


def test_a_file_that_has_got_the_memorys_number_stays_as_it_is(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other: Path = tmp_path_factory.mktemp("others") / "file"
    other.write_text("another's")
    done = traces.run("engine_faults.py", str(other))
    assert (done.stdout, done.stderr) == ("0 None\n", "")
    assert other.read_text() == "another's"
