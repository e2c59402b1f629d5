"""The tools of benchmarks/ run, and what they write is well-formed. No test looks at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import aims, nodes, pictures, report, runs, suite, watcher_cost
from benchmarks.cpu import Usage
from benchmarks.growth import fit
from benchmarks.latency import Latency
from benchmarks.pacing import PATTERNS, gaps
from benchmarks.pause import pause
from benchmarks.peers.peer import SILENT, Setup
from benchmarks.results import Results, new_results
from benchmarks.table import markdown

pytestmark = pytest.mark.long

_ROOT = Path(__file__).parents[2]
_TIMES = ("mean_us", "p50_us", "p90_us", "p99_us", "p999_us")


def command(tool: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{tool}", *options]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Runs a tool with a few messages; its results, with what it printed in `printed`."""

    def run_tool(tool: str, *options: str, env: dict[str, str] | None = None) -> Any:
        path = tmp_path / "results.json"
        done = subprocess.run(
            command(tool, *options, "--rounds", "2", "--json", str(path)),
            cwd=_ROOT,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(path.read_text()) | {"printed": done.stdout}

    return run_tool


def test_round_trips_have_a_row_for_each_transport_size_and_number_of_ranks(
    run: Callable[..., Any],
) -> None:
    results = run(
        "channel_latency",
        *("--ranks", "1,2", "--size", "64,2K", "--messages", "20"),
        *("--transports", "c-pingpong,mpspmd-raw,mpspmd,mp-pipe,mp-queue,zmq-ipc"),
    )
    rows = results["results"]
    found = {(row["transport"], row["ranks"], row["size_bytes"]) for row in rows}
    carriers = ("mpspmd-raw", "mpspmd", "mp-pipe", "mp-queue", "zmq-ipc")
    wanted = {(name, n, size) for name in carriers for n in (1, 2) for size in (64, 2048)}
    wanted |= {("c-pingpong", 1, size) for size in (64, 2048)}  # the limit is of two processes
    assert found == wanted
    assert len(rows) == len(wanted)
    for row in rows:
        assert row["version"]
        assert row["reply"] == "all"
        assert row["messages"] == 40
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"]
        assert 0 < row["mean_us"] <= row["p999_us"]
    assert all(len(row["rounds"]) == 2 for row in results["per_round"])
    assert results["machine"]["cpu"] in results["printed"]


@pytest.mark.parametrize("strategy", ["spin", "yield", "park"])
def test_a_transport_for_each_way_of_waiting(strategy: str, run: Callable[..., Any]) -> None:
    name = f"mpspmd-{strategy}"
    options = ("--ranks", "1", "--messages", "20", "--transports", name)
    assert [row["transport"] for row in run("channel_latency", *options)["results"]] == [name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "module"),
    [
        ("vllm-messagequeue", "vllm"),
        ("gloo", "torch"),
        ("iceoryx2", "iceoryx2"),
        ("ray-graph", "ray"),
        ("ray-actor", "ray"),
        ("mpspmd-engine", "torch"),
    ],
)
def test_each_peer_that_is_installed_answers(
    transport: str, module: str, run: Callable[..., Any]
) -> None:
    pytest.importorskip(module)
    options = ("--ranks", "2", "--transports", transport)
    latencies = run("channel_latency", *options, "--messages", "20", "--reply", "rank0")
    assert [row["transport"] for row in latencies["results"]] == [transport]
    throughput = run("throughput", *options, "--size", "64,1M", "--window", "8", "--messages", "8")
    assert [row["size_bytes"] for row in throughput["results"]] == [64, 1 << 20]


def test_a_peer_that_is_not_installed_is_reported_and_the_others_are_measured(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "zmq.py").write_text("raise ModuleNotFoundError(\"No module named 'zmq'\")\n")
    results = run(
        "channel_latency",
        *("--ranks", "1", "--messages", "20", "--transports", "zmq-ipc,mp-pipe"),
        env={"PYTHONPATH": str(absent)},
    )
    assert [row["transport"] for row in results["results"]] == ["mp-pipe"]
    assert results["missing"] == [
        {"name": "zmq-ipc", "why": "not installed: No module named 'zmq'"}
    ]
    assert any(
        "zmq-ipc" in line and "not installed" in line for line in results["printed"].splitlines()
    )


def test_paced_rows_say_what_waiting_costs_each_process(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    results = run(
        "paced_latency",
        *("--interval-ms", "1,2", "--ranks", "2", "--patterns", "steady,shift"),
        *("--messages", "10", "--warm-up", "2", "--transports", "mpspmd,mp-pipe"),
        *("--plot", str(picture)),
    )
    rows = results["results"]
    assert {(row["transport"], row["pattern"], row["interval_ms"]) for row in rows} == {
        (transport, pattern, ms)
        for transport in ("mpspmd", "mp-pipe")
        for pattern in ("steady", "shift")
        for ms in (1, 2)
    }
    for row in rows:
        assert all(row[key] > 0 for key in _TIMES)
        assert row["engine_cpu_pct"] > 0
        assert len(row["rank_cpu_pcts"]) == 2
        assert 0 < row["rank_cpu_pct"] == max(row["rank_cpu_pcts"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_replies_of_working_ranks_are_timed_from_the_end_of_their_work(
    run: Callable[..., Any],
) -> None:
    results = run(
        "paced_latency",
        *("--gap", "ranks", "--interval-ms", "500", "--jitter", "0", "--ranks", "1"),
        *("--messages", "2", "--warm-up", "1", "--transports", "mp-pipe"),
    )
    assert results["results"][0]["p50_us"] < 500_000  # the work itself isn't in it


def test_idle_rows_have_no_latency_but_switches(run: Callable[..., Any]) -> None:
    results = run("paced_latency", "--idle-s", "0.3", "--ranks", "2", "--transports", "mp-pipe")
    (row,) = results["results"]
    assert row["idle_s"] == 0.3
    assert "p50_us" not in row
    assert 0 <= row["rank_cpu_pct"] < 100
    assert row["engine_switches_per_s"] > 0
    assert row["rank_switches_per_s"] >= 0


def test_throughput_counts_messages_and_bytes(run: Callable[..., Any]) -> None:
    results = run(
        "throughput",
        *("--ranks", "1", "--size", "64,1M", "--window", "8", "--messages", "16"),
        *("--round-s", "60", "--transports", "mpspmd"),
    )
    small, tensor = results["results"]
    assert (small["kind"], small["window"], small["messages"]) == ("bytes", 8, 32)
    assert (tensor["kind"], tensor["window"], tensor["messages"]) == ("tensor", 1, 32)
    assert tensor["gb_per_s"] == pytest.approx(tensor["messages_per_s"] * 2**20 / 1e9, rel=0.01)


def test_scaling_has_a_row_for_each_number_of_ranks_and_a_fit_of_each_figure(
    run: Callable[..., Any],
) -> None:
    results = run("scaling", "--ranks", "1,2,3", "--messages", "5", "--gap-ms", "1")
    assert [row["ranks"] for row in results["results"]] == [1, 2, 3]
    for row in results["results"]:
        assert row["first_reader_us"] <= row["last_reader_us"] <= row["last_reader_p99_us"]
        assert row["writer_us"] > 0
        assert row["shared_bytes"] > 4 << 20
    assert results["fits"]["shared_bytes"]["r2"] == 1  # a ring a rank, all of the same size
    assert "last_reader_us ≈" in results["printed"]


def _busy_rank(pid: int) -> int:
    """The only rank of a tool, when it has answered messages for a second."""
    while True:
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error, OSError):  # it has ended
                if "spawn_main" in " ".join(child.cmdline()) and Usage.of(child.pid).cpu_ns > 10**9:
                    return child.pid
        time.sleep(0.05)


def test_a_killed_rank_ends_the_run_and_is_named(tmp_path: Path) -> None:
    tool = subprocess.Popen(
        [
            *command("channel_latency", "--ranks", "1", "--transports", "zmq-ipc"),
            *("--messages", "10000000", "--round-s", "600"),
        ],
        cwd=_ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        rank = _busy_rank(tool.pid)
        os.kill(rank, signal.SIGKILL)
        _, errors = tool.communicate(timeout=60)
    finally:
        tool.kill()
        tool.wait()
    assert tool.returncode == 1
    assert f"a rank of zmq-ipc (pid {rank}) ended: killed by SIGKILL" in errors


@pytest.mark.parametrize("tool", ["channel_latency", "paced_latency", "throughput", "scaling"])
def test_a_wrong_option_is_one_line_and_exit_code_2(tool: str) -> None:
    done = subprocess.run(
        command(tool, "--ranks", "65"), cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'65' is not a whole number from 1 to 64" in done.stderr


def test_percentiles_are_by_nearest_rank() -> None:
    latency = Latency.of([number * 1000 for number in range(1, 1001)])
    assert (latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us) == (500, 900, 990, 999)
    assert latency.mean_us == 500.5
    assert Latency.of([3000, 1000]).p999_us == 3


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gaps_are_the_same_for_all_transports_and_differ_by_round(pattern: str) -> None:
    one = gaps(pattern, 0.01, 0.05, 100, 1)
    assert one == gaps(pattern, 0.01, 0.05, 100, 1)
    assert one != gaps(pattern, 0.01, 0.05, 100, 2)
    assert all(gap >= 0 for gap in one)


def test_patterns_are_what_their_names_say() -> None:
    assert all(0.0095 <= gap <= 0.0105 for gap in gaps("steady", 0.01, 0.05, 100, 0))
    assert gaps("shift", 0.01, 0, 4, 0) == [0.01, 0.01, 0.1, 0.1]
    assert [gap > 0 for gap in gaps("bursts", 0.01, 0, 41, 0)].count(True) == 3
    assert gaps("alternating", 0.01, 0, 2, 0) == pytest.approx([0.001, 0.019])


def test_a_fit_finds_the_line_and_the_power_of_a_growth() -> None:
    line = fit([1, 2, 4, 8], [5 + 3 * n for n in (1, 2, 4, 8)])
    assert (line["a"], line["b"], line["r2"]) == (5, 3, 1)
    assert fit([1, 2, 4, 8], [n**2 for n in (1, 2, 4, 8)])["exponent"] == 2


def test_a_responder_replies_when_its_setup_says_so() -> None:
    assert Setup(2, "rank0", answer=7).responder(0)(b"") == 7
    assert Setup(2, "rank0", answer=7).responder(1)(b"") is SILENT
    every_third = Setup(1, every=3).responder(0)
    assert [every_third(b"") is SILENT for _ in range(6)] == [True, True, False] * 2
    assert every_third([]) is None
    began = time.perf_counter_ns()
    worked = Setup(2, timed=True).responder(1)([0.0, 0.02])
    assert isinstance(worked, int)
    assert worked - began >= 20_000_000


def test_usage_counts_the_time_of_all_threads_of_a_process() -> None:
    before = Usage.of(os.getpid())
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    after = Usage.of(os.getpid())
    assert after.cpu_ns - before.cpu_ns >= 100_000_000
    assert min(before.switches, after.switches) > 0  # fewer, where a thread has ended meanwhile


def test_a_watcher_that_is_stopped_ends_when_its_measurement_is_interrupted() -> None:
    with watcher_cost._watcher(1.0) as pid:
        pause([pid])
    assert not psutil.pid_exists(pid)


def _results(benchmark: str, rows: list[dict[str, Any]], **settings: Any) -> Results:
    results = new_results(benchmark, 5, 100, settings | {"ranks": [1, 2]})
    results["results"] += rows
    return results


def _trip(transport: str, ranks: int, mean_us: float) -> dict[str, Any]:
    figures = dict.fromkeys(_TIMES, mean_us)
    return {"transport": transport, "version": "1", "ranks": ranks, "size_bytes": 64, **figures}


def test_an_aim_that_is_missed_says_so() -> None:
    rows = [_trip("mpspmd", n, 2.0) for n in (1, 2)]
    rows += [_trip("vllm-messagequeue", 1, 20.0), _trip("vllm-messagequeue", 2, 15.0)]
    found = aims.reached({"round-trips": _results("channel_latency", rows, reply="all")})
    assert [row["reached"] for row in found] == ["yes", "**no**"]
    assert found[1]["found"].startswith("7.5")


def test_aims_of_vllms_steps_compare_backends() -> None:
    rows = [
        {"backend": name, "tp": 2, "scenario": "steady", "batch": batch, "p50_us": p50}
        for name, batch, p50 in (("mp", 1, 80.0), ("mp-spmd", 1, 10.0), ("mp", 256, 79.0))
    ]
    rows.append({"backend": "mp-spmd", "tp": 2, "scenario": "steady", "batch": 256, "p50_us": 10.0})
    found = aims.reached({"step-overhead": _results("step_overhead", rows)})
    assert [row["reached"] for row in found] == ["yes", "**no**"]


def test_aims_over_nodes_are_missed_where_they_are_and_steps_are_drawn(tmp_path: Path) -> None:
    figures = {
        ("bytes", 64, "remote"): {"mpspmd": (110.0, 450), "zmq-curve": (54.0, 330)},
        ("step", 256, "remote"): {"mpspmd": (150.0, 1000), "vllm-messagequeue": (600.0, 26_000)},
        ("step", 1024, "remote"): {"mpspmd": (200.0, 1000), "vllm-messagequeue": (300.0, 101_000)},
        ("step", 1024, "two-remote"): {"mpspmd": (200.0, 1100)},
    }
    rows = [
        {"backend": name, "version": "1", "what": what, "size": size, "ranks": ranks,
         "p50_us": p50, "p99_us": p50, "wire_bytes": wire}
        for (what, size, ranks), peers in figures.items()
        for name, (p50, wire) in peers.items()
    ]  # fmt: skip
    results = _results("nodes", rows)
    found = {row["aim"]: row["reached"] for row in aims.reached({"nodes": results})}
    assert list(found.values()) == ["yes", "**no**", "**no**", "yes", "yes", "**no**"]
    pictures.draw(results, tmp_path / "nodes.png")
    assert (tmp_path / "nodes.png").stat().st_size > 1000
    assert "26.0×" in markdown(nodes.columns(results), rows)  # noqa: RUF001


def test_a_start_that_is_slower_than_mps_misses_the_aim_and_is_drawn(tmp_path: Path) -> None:
    rows = [
        {
            "backend": name,
            "version": "1",
            "tp": 2,
            "start_s": start,
            "start_cpu_s": 9.0,
            "stop_s": stop,
        }
        | {"start_vs_mp": start / 20, "stop_vs_mp": stop / 5}
        for name, start, stop in (("mp", 20.0, 5.0), ("mp-spmd", 21.0, 1.0))
    ]
    results = _results("start_stop", rows)
    found = aims.reached({"start-stop": results})
    assert [(row["found"], row["reached"]) for row in found] == [
        ("1.050", "**no**"),
        ("0.200", "yes"),
    ]
    pictures.draw(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_document_has_the_table_the_picture_and_what_is_missing(tmp_path: Path) -> None:
    results = _results("channel_latency", [_trip("mpspmd", 1, 2.0)], reply="all")
    results["missing"].append({"name": "ray-graph", "why": "not installed: no ray"})
    document = tmp_path / "figures.md"
    section = report.Section("Trips", "What it means.", "python -m x", results)
    report.write(document, {"round-trips": section})
    text = document.read_text()
    assert "| 1 | 64 B | mpspmd | 1 | 2.0 |" in text
    assert "What it means." in text
    assert "stopped before ranks 2" in text
    assert "`ray-graph` was not measured: not installed: no ray" in text
    assert "![Trips](figures/round-trips.png)" in text
    assert (tmp_path / "figures/round-trips.png").read_bytes().startswith(b"\x89PNG")


def test_every_run_has_its_section_in_one_document(tmp_path: Path) -> None:
    documented = [name for named in runs.DOCUMENTS.values() for name in named]
    assert sorted(documented) == sorted(runs.RUNS)
    results = _results("channel_latency", [_trip("mpspmd", 1, 2.0)], reply="all")
    for name in ("round-trips", "vllm"):
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    (tmp_path / "sizes.json").touch()  # a run that was stopped before its first results
    found = [list(suite.sections(tmp_path, named)) for named in runs.DOCUMENTS.values()]
    assert found == [["round-trips"], ["vllm"]]
