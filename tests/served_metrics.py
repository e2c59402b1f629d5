"""served_metrics: mpspmd-metrics, for one process's engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served_metrics(engine: int) -> Iterator[tuple[int, str]]:
    """Its process's id, and the address where it serves."""
    command = [sys.executable, "-m", "mpspmd", "metrics", str(engine)]
    options = ["--port", "0", "--interval", "0.1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.terminate()
