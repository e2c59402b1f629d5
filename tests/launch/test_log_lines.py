"""Each line of a rank's log names the rank, however it was started, unless logging is configured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from start_notes import without_start_notes

pytestmark = pytest.mark.timeout(240)

_SCRIPT = Path(__file__).with_name("log_lines.py")


def spawned(*arguments: str, **environment: str) -> list[str]:
    """The lines of `python log_lines.py`."""
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stdout) == (
        ("MPSPMD_LOG_LEVEL", "loud") in environment.items(),
        "",
    )
    return without_start_notes(done.stderr).splitlines()


@pytest.fixture(params=["python", "mpspmd-launch"])
def lines(request: pytest.FixtureRequest, launch: Callable[..., Any]) -> list[str]:
    if request.param == "python":
        return spawned()
    code, out, err = launch("-n", "2", "log_lines.py").result()
    assert (code, out) == (0, "")
    return err.splitlines()


def test_every_line_of_a_rank_begins_with_its_rank_once(lines: list[str]) -> None:
    assert lines.count("from the engine") == 1
    for rank in (0, 1):
        prefix = f"[rank{rank}] "
        own = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        assert own[:2] == ["first line", "second line"]
        assert own[-1] == "RuntimeError: the end of a traceback"
        assert not any("[rank" in line for line in own)
    assert sum(line.startswith("[rank") for line in lines) == len(lines) - 1
    assert not any("detail" in line for line in lines)


def test_the_level_can_be_chosen_for_our_own_loggers() -> None:
    lines = spawned(MPSPMD_LOG_LEVEL="Info")
    assert {line for line in lines if "detail" in line} == {
        "[rank0] in detail",
        "[rank1] in detail",
        "the engine's detail",
    }
    lines = spawned(MPSPMD_LOG_LEVEL="critical")
    assert sorted(lines) == sorted(
        f"[rank{rank}] {line}" for rank in (0, 1) for line in ("first line", "second line")
    )


def test_a_level_that_does_not_exist_is_refused_by_its_name() -> None:
    assert spawned(MPSPMD_LOG_LEVEL="loud")[-1] == (
        "mpspmd.errors.ConfigError: MPSPMD_LOG_LEVEL='loud': must be one of debug, info, warning, "
        "error, critical"
    )


def test_a_program_that_has_configured_logging_has_its_own_format_alone() -> None:
    lines = spawned("configured")
    assert lines.count("own format: first line") == 2
    assert not any("[rank" in line for line in lines)
    assert lines.count("from the engine") == 1
