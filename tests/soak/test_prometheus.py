"""A real Prometheus scrapes mpspmd-metrics while an engine runs a million steps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpspmd

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import workers

pytest.importorskip("prometheus_client")
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="apt-get install prometheus")

_SETTINGS = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: mpspmd
    static_configs: [{{targets: ["{target}"]}}]
"""


@contextmanager
def metrics() -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "mpspmd", "metrics", str(os.getpid()), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield psutil.Process(process.pid), process.stdout.readline().strip()
        process.terminate()


@contextmanager
def prometheus(target: str, folder: Path, port: int = 19090) -> Iterator[str]:
    settings = folder / "prometheus.yml"
    settings.write_text(_SETTINGS.format(target=target))
    command = [
        str(PROMETHEUS),
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def ask(server: str, query: str) -> dict[str, float]:
    """The value of each series, by its label `rank`, or "" if it has none. Empty until there are any."""
    url = f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    return {each["metric"].get("rank", ""): float(each["value"][1]) for each in found}


@pytest.mark.parametrize(
    "steps", [10**4, pytest.param(10**6, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_prometheus_counts_all_steps_and_nothing_grows(
    steps: int, tmp_path: Path, eventually: Any
) -> None:
    with (
        metrics() as (process, address),
        prometheus(address.removeprefix("http://").removesuffix("/metrics"), tmp_path) as server,
        mpspmd.Engine(workers.Calculator, world_size=2) as engine,
    ):
        eventually(lambda: ask(server, "mpspmd_alive") == {"": 1}, "it is scraped", 60)
        sizes = []
        for done in range(steps):
            engine.collective_rpc("echo", args=(done,))
            if done % (steps // 10) == 0:
                sizes.append(process.memory_info().rss)
        time.sleep(2)
        eventually(lambda: ask(server, "mpspmd_steps_total") == {"": steps}, "all are counted")
        (missed,) = ask(server, "mpspmd_missed_steps_total").values()
        counted = ask(server, "sum by (rank) (mpspmd_rank_running_seconds_count)")
        assert all(steps - missed <= n <= steps for n in counted.values()), (missed, counted)
        assert missed < steps / 10
        assert ask(server, "mpspmd_alive") == {"": 1}
        assert sizes[-1] - sizes[len(sizes) // 2] < 4 << 20, sizes
