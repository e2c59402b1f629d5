"""A real Prometheus scrapes mpspmd-metrics while an engine runs a million steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from footprint import Footprint, footprint, growth

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
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Ended also when the test fails."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


class Stepper:
    """An engine in a process that has no other: mpspmd-metrics sees all engines of a process."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("stepper.py"))]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pids: list[int] = json.loads(self._line())
        """The engine's and the ranks'."""

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def run(self, steps: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        assert self._line() == "done\n"

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def metrics(engine: int) -> Iterator[tuple[int, str]]:
    """Its process and its address."""
    program = [sys.executable, "-m", "mpspmd", "metrics", str(engine)]
    with running(*program, "--port", "0", "--interval", "0.1") as process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()


@contextmanager
def prometheus(target: str, folder: Path, port: int = 19090) -> Iterator[str]:
    settings = folder / "prometheus.yml"
    settings.write_text(_SETTINGS.format(target=target))
    with running(
        str(PROMETHEUS),
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ):
        yield f"http://127.0.0.1:{port}"


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
        Stepper() as engine,
        metrics(engine.pids[0]) as (pid, address),
        prometheus(address.removeprefix("http://").removesuffix("/metrics"), tmp_path) as server,
    ):
        eventually(lambda: ask(server, "mpspmd_alive") == {"": 1}, "it is scraped", 60)
        watched = [pid, *engine.pids]
        footprints: list[list[Footprint]] = []
        for done in range(0, steps, _AT_ONCE):
            engine.run(_AT_ONCE)
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
    names = ("metrics", "engine", "rank 0", "rank 1")
    for name, *each in zip(names, *footprints, strict=True):
        grown = growth(each[1:])  # after the first steps
        print(f"{name}: {each[-1]}, {grown}")
        assert grown.rss_kib < 4096, (name, each)
        assert grown.descriptors <= 2, (name, each)  # of a scrape under way
        assert grown.threads <= 2, (name, each)
