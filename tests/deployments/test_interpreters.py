"""Ranks run the interpreter that multiprocessing names; one that can't be run is refused at once."""

from __future__ import annotations

import sys

import pytest
from traces import HERE, Traces

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("path", ["None", "", "/nonexistent/python", "/", str(HERE / "echo.py")])
def test_an_interpreter_that_cannot_be_run_is_refused_with_the_remedy(
    traces: Traces, path: str
) -> None:
    done = traces.run("interpreters.py", path, timeout_s=20)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    named = repr(path.replace("None", ""))
    assert last.startswith(
        f"mpspmd.errors.ConfigError: the Python interpreter {named} can't be run"
    )
    assert "multiprocessing.set_executable" in last


def test_the_remedy_helps(traces: Traces) -> None:
    done = traces.run("interpreters.py", "None", sys.executable, timeout_s=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
