"""mpspmd-metrics: what Prometheus gets is what the engines did."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families
from served_metrics import served_metrics
from told_program import ToldProgram

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def program() -> Iterator[ToldProgram]:
    with ToldProgram(Path(__file__).parent) as told:
        told.do("import watched_workers")
        yield told


@pytest.fixture
def address(program: ToldProgram) -> Iterator[str]:
    """Where the program's metrics are served."""
    with served_metrics(program.pid) as (_, where):
        yield where


def start_engine(program: ToldProgram) -> None:
    program.do("engine = mpspmd.Engine(watched_workers.Stepper, world_size=2)")


class Scrape:
    """The samples of one scrape."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(address, timeout=30) as answer:
            text = answer.read().decode()
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"mpspmd_{name}" and labels.items() <= sample.labels.items()
        )


def _has_counted(address: str, steps: int) -> bool:
    found = Scrape(address)
    counts = [found.value("rank_running_seconds_count", rank=rank) for rank in "01"]
    return [*counts, found.value("step_seconds_count")] == [steps] * 3


def test_figures_are_the_engines_and_go_on_when_the_next_engine_comes(
    program: ToldProgram, address: str, eventually: Any
) -> None:
    steps = 0
    for slow in (1, 0):
        start_engine(program)
        eventually(lambda: Scrape(address).value("alive", engine="0") == 1, "it is found", 30)
        before = Scrape(address)
        assert before.value("steps_total") == steps
        program.do(f"for _ in range(60): engine.execute_model({slow}, 0.05)")
        program.do("engine.collective_rpc('sleep_on', args=(-1, 0))")
        steps += 61
        eventually(partial(_has_counted, address, steps), "all steps are counted")
        found = Scrape(address)
        assert found.value("steps_total") == steps
        method = {"method": "execute_model"}
        assert found.value("step_seconds_count", **method) == steps - steps // 61
        for rank in "01":
            n = found.value("rank_running_seconds_count", rank=rank, **method)
            assert n == steps - steps // 61
            straggler = found.value("straggler_seconds", rank=rank)
            assert (straggler > 0.03) == (rank == str(slow))
        more = found.value("rank_running_seconds_sum", rank=str(slow)) - before.value(
            "rank_running_seconds_sum", rank=str(slow)
        )
        assert more > 60 * 0.05
        assert found.value("missed_steps_total") == 0
        assert found.value("bytes_total", direction="request") > 10 * steps
        assert found.value("wakes_total") > 0
        program.do("engine.shutdown()")
        eventually(lambda: Scrape(address).value("alive") == 0, "it is gone", 30)
    assert {sample.labels["engine"] for sample in Scrape(address).samples} == {"0"}


def test_the_dashboard_asks_for_metrics_that_there_are(
    program: ToldProgram, address: str, eventually: Any
) -> None:
    dashboard = Path(__file__).parents[2] / "examples" / "grafana.json"
    asked = {
        name
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"mpspmd_\w+", target["expr"])
    }
    assert len(asked) > 10
    start_engine(program)

    def are_there() -> bool:
        program.do("engine.execute_model(-1, 0)")
        return asked <= {sample.name for sample in Scrape(address).samples}

    eventually(are_there, f"there are {asked}", 30)
    program.do("engine.shutdown()")


def test_an_address_that_can_not_be_one_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpspmd", "metrics", "--address", "x" * 64],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "label too long" in done.stderr


def test_an_address_of_ipv6_stands_in_brackets_as_in_any_url() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mpspmd", "metrics", "--address", "::1", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline()
        server.kill()
    assert re.fullmatch(r"http://\[::1\]:\d+/metrics\n", url)


def test_an_address_that_is_taken_is_one_line(address: str) -> None:
    port = address.split(":")[2].partition("/")[0]
    done = subprocess.run(
        [sys.executable, "-m", "mpspmd", "metrics", "--port", port], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"127.0.0.1:{port}: Address already in use" in done.stderr
