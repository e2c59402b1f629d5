"""The benchmark over two nodes measures round trips and what they put on the wire."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_nodes import needs_nodes

pytestmark = [needs_nodes, pytest.mark.long]


def test_each_peer_has_a_row_with_its_time_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    options = "--no-vllm --ranks remote --steps 20 --rounds 1 --json"
    command = [sys.executable, "-m", "benchmarks.nodes", *options.split(), str(path)]
    done = subprocess.run(command, check=False, timeout=280, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["backend"]: row for row in json.loads(path.read_text())["results"]}
    assert list(rows) == ["mpspmd", "zmq-curve"]
    assert all(row["p50_us"] > 0 for row in rows.values())
    # Two messages of 64 bytes, each encrypted and in a TCP segment.
    assert 2 * 64 < rows["zmq-curve"]["wire_bytes"] < rows["mpspmd"]["wire_bytes"] < 2000
