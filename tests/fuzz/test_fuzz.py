"""A short run of the random mutations, and what `make fuzz` has found worth keeping."""

from __future__ import annotations

import os
from pathlib import Path

import fuzz
import pytest

KEPT = Path(__file__).parent / "seeds"


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutated_bytes_are_refused_by_name_and_crash_nobody(name: str) -> None:
    # A seed of its own each time: a failure prints it.
    refused = fuzz.run(name, 5000, int.from_bytes(os.urandom(4), "big"))
    assert refused > 1000


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_good_bytes_are_taken_and_kept_ones_crash_nobody(name: str) -> None:
    target = fuzz.TARGETS[name]()
    try:
        assert not any(target.refuses(data) for data in target.inputs())
        kept = [path.read_bytes() for path in sorted((KEPT / name).iterdir())]
        assert any(target.refuses(data) for data in kept)
    finally:
        target.close()
