"""A short run of the fuzzers: `make fuzz` runs longer ones."""

from __future__ import annotations

import os

import fuzz
import pytest


@pytest.mark.parametrize("target", ["record", "control", "delta"])
def test_mutated_bytes_are_refused_by_name_and_crash_nobody(target: str) -> None:
    # A seed of its own each time: a failure prints it.
    refused = fuzz.run(target, 5000, int.from_bytes(os.urandom(4), "big"))
    assert refused > 1000
