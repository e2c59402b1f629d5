"""Each test here leaves nothing behind and harms nothing of others': it is checked after every one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from traces import Traces


@pytest.fixture(autouse=True)
def traces(tmp_path: Path) -> Iterator[Traces]:
    """Runs programs, and finds what they leave and what they harm."""
    traces = Traces(tmp_path)
    left: list[str] = []
    try:
        yield traces
        # A janitor removes files a moment after the last process has ended.
        for _ in range(400):
            if not (left := traces.left_behind()):
                break
            time.sleep(0.05)
        harmed = traces.harmed()
    finally:
        seen = traces.close()
    assert not left, left
    assert not harmed + seen, harmed + seen
