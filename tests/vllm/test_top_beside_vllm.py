"""mpspmd-top beside an engine that serves: the figures are psutil's and vLLM's own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from vllm_server import Server


def top() -> list[dict[str, Any]]:
    program = [sys.executable, "-c", "from mpspmd.cli.top import main; main()", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    views: list[dict[str, Any]] = json.loads(done.stdout)
    return views


@pytest.mark.slow
def test_the_figures_of_a_serving_vllm(model: Path, tmp_path: Path) -> None:
    server = Server(model, tmp_path / "log.txt")
    try:
        server.wait_until_healthy()
        below = psutil.Process(server.process.pid).children(recursive=True)
        idle = next(view for view in top() if view["pid"] in {process.pid for process in below})
        ranks = [psutil.Process(rank["stats"]["pid"]) for rank in idle["ranks"]]
        assert len(ranks) == 2
        assert all(psutil.Process(idle["pid"]) in rank.parents() for rank in ranks)

        tokens = 300
        client = threading.Thread(
            target=server.stream, args=([5, 6, 7], {"max_tokens": tokens, "ignore_eos": True})
        )
        client.start()
        view = next(view for view in top() if view["pid"] == idle["pid"])
        client.join()
        after = next(each for each in top() if each["pid"] == idle["pid"])

        assert idle["steps"] < view["steps"] < after["steps"]
        # A forward pass and its sampling are one request.
        assert tokens <= after["steps"] - idle["steps"] < tokens + 20
        for rank, process in zip(after["ranks"], ranks, strict=True):
            assert rank["memory_bytes"] == pytest.approx(process.memory_info().rss, rel=0.2)
            assert rank["stats"]["pid"] == process.pid
    finally:
        server.stop()
        server.kill()
