"""Two simulated nodes, which the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulated_nodes import SimulatedNodes


@pytest.fixture(scope="module")
def two() -> Iterator[SimulatedNodes]:
    with SimulatedNodes(2) as nodes:
        yield nodes
