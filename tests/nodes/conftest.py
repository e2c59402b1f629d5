"""Tests over several nodes are skipped where nodes can't be simulated."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from simulated_nodes import why_no_nodes  # noqa: E402

_why_no_nodes = functools.cache(why_no_nodes)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in Path(item.fspath).parents]
    if here and (reason := _why_no_nodes()):
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))
