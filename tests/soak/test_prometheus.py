"""A real Prometheus scrapes mpspmd-metrics while an engine runs a million steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from footprint import Footprint, footprint, growth
from served_metrics import served_metrics
from told_program import ToldProgram

pytest.importorskip("prometheus_client")
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="apt-get install prometheus")

_AT_ONCE = 2000
"""Steps; half of what the recorder keeps."""

_SETTINGS = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: mpspmd
    static_configs: [{{targets: ["{target}"]}}]
"""


@contextmanager
def prometheus(target: str, folder: Path, port: int = 19090) -> Iterator[str]:
    """Its address."""
    settings = folder / "prometheus.yml"
    settings.write_text(_SETTINGS.format(target=target))
    options = {
        "config.file": settings,
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "error",
    }
    command = [str(PROMETHEUS), *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def read_steps(address: str) -> int:
    """How many steps mpspmd-metrics has read so far."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith("mpspmd_steps_total{"))
    return int(float(line.split()[-1]))


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
    "steps", [10**4, pytest.param(10**6, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_prometheus_counts_all_steps_and_nothing_grows(
    steps: int, tmp_path: Path, eventually: Any
) -> None:
    with (
        ToldProgram(Path(__file__).parents[1] / "unit") as program,
        served_metrics(program.pid) as (pid, address),
        prometheus(address.removeprefix("http://").removesuffix("/metrics"), tmp_path) as server,
    ):
        program.do("import workers; engine = mpspmd.Engine(workers.Calculator, world_size=2)")
        eventually(lambda: ask(server, "mpspmd_alive") == {"": 1}, "it is scraped", 60)
        watched = [pid, program.pid, *program.do("answer = engine.pids")]
        footprints: list[list[Footprint]] = []
        for done in range(0, steps, _AT_ONCE):
            program.do(f"for i in range({_AT_ONCE}): engine.collective_rpc('echo', args=(i,))")
            # Steps without work come faster than they are read: wait, so that no record is replaced before.
            read = done + _AT_ONCE
            eventually(lambda read=read: read_steps(address) == read, "they are read", 60)
            if done % (steps // 10) == 0:
                footprints.append([footprint(process) for process in watched])
        eventually(lambda: ask(server, "mpspmd_steps_total") == {"": steps}, "all are counted", 60)
        assert ask(server, "mpspmd_missed_steps_total") == {"": 0}
        counted = ask(server, "sum by (rank) (mpspmd_rank_running_seconds_count)")
        assert counted == {"0": steps, "1": steps}
        assert ask(server, "mpspmd_alive") == {"": 1}
        program.do("engine.shutdown()")
    names = ("metrics", "engine", "rank 0", "rank 1")
    for name, *each in zip(names, *footprints, strict=True):
        grown = growth(each[1:])  # after the first steps
        print(f"{name}: {each[-1]}, {grown}")
        assert grown.rss_kib < 4096, (name, each)
        assert grown.descriptors <= 2, (name, each)  # of a scrape under way
        assert grown.threads <= 2, (name, each)
