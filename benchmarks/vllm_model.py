"""The tests' tiny model, in a temporary folder."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TESTS = Path(__file__).parents[1] / "tests"


@contextlib.contextmanager
def tiny_model() -> Iterator[Path]:
    """Makes the model; removes it afterwards."""
    sys.path.append(str(_TESTS))
    from tiny_model import make_tiny_llama  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory(prefix="tiny-model-") as folder:
        yield make_tiny_llama(Path(folder))
