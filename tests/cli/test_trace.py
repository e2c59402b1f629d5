"""mpspmd-trace and mpspmd-top tell where the time goes, and who makes the others wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import watched_workers
from chrome_traces import check

import mpspmd

pytestmark = pytest.mark.timeout(120)


def start(all_reduces: bool) -> mpspmd.Engine:
    return mpspmd.Engine(watched_workers.Stepper, world_size=2, args=(all_reduces,))


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "all-reduce"])
def engine(request: pytest.FixtureRequest) -> Iterator[mpspmd.Engine]:
    with start(request.param) as engine:
        yield engine


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpspmd", command, *arguments], capture_output=True, text=True
    )


def straggler(engine: mpspmd.Engine, slow_rank: int, extra_s: float) -> str:
    """What `trace --summary` says of 100 steps."""
    first = engine.stats().steps
    for _ in range(100):
        engine.execute_model(slow_rank, extra_s)
    engine.collective_rpc("sleep_on", args=(-1, 0))  # only rank 0 has replied to the others
    done = run("trace", str(os.getpid()), "--summary", "--last", "100s")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"engine {os.getpid()}" in done.stdout
    assert first < engine.stats().steps
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("straggler"))
    return line


@pytest.mark.parametrize("all_reduces", [False, True], ids=["alone", "all-reduce"])
def test_equal_ranks_name_nobody_and_the_rank_that_sleeps_longer_is_named(
    all_reduces: bool,
) -> None:
    # On a busy machine a rank that has to wait for a processor is late, too: then another run may show it.
    while True:
        with start(all_reduces) as equal:
            if straggler(equal, -1, 0) == "straggler: none":
                break
    with start(all_reduces) as engine:  # in which no other test has made a rank slow
        for _ in range(20):  # so that the slow steps are in the majority
            engine.execute_model(1, 0.02)
        line = straggler(engine, 1, 0.02)
    assert line.startswith("straggler: rank 1, ready ")
    late, unit = line.split(" ready ")[1].split()[:2]
    assert float(late) * {"ms": 1e-3, "s": 1}[unit] > 0.01


def seen_by_top_while_rank_1_is_slow(engine: mpspmd.Engine) -> dict[str, Any]:
    with subprocess.Popen(
        [sys.executable, "-m", "mpspmd", "top", "--json", str(os.getpid())], stdout=subprocess.PIPE
    ) as top:
        while top.poll() is None:
            engine.execute_model(1, 0.02)
        assert top.stdout is not None
        views = json.loads(top.stdout.read())
    (view,) = (v for v in views if [rank["stats"]["pid"] for rank in v["ranks"]] == engine.pids)
    return view


def test_top_names_it_too(engine: mpspmd.Engine) -> None:
    while True:
        view = seen_by_top_while_rank_1_is_slow(engine)
        # The steps of the last five seconds count, also those of other tests.
        if view["straggler"] is not None and view["straggler"]["late_s"] > 0.01:
            break
    assert view["straggler"]["rank"] == 1
    assert 0 < view["bubble"]["p50"] < 0.1
    table = run("top", "--once", str(os.getpid())).stdout
    assert "bubble" in table
    assert "straggler" in table


def test_a_trace_has_all_steps_their_methods_and_their_arrows(
    engine: mpspmd.Engine, tmp_path: Path
) -> None:
    for _ in range(20):
        engine.execute_model(-1, 0)
    engine.collective_rpc("sleep_on", args=(-1, 0))
    path = tmp_path / "trace.json"
    done = run("trace", str(os.getpid()), "-o", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    trace = json.loads(path.read_text())
    check(trace)
    steps = engine.stats().steps
    events: list[dict[str, Any]] = trace["traceEvents"]
    for rank in range(2):
        running = [e for e in events if e.get("cat") == "running" and e["tid"] == rank + 1]
        assert [e["args"]["step"] for e in running] == list(range(1, steps + 1))
        assert {e["name"] for e in running[-21:-1]} == {"execute_model"}
        assert running[-1]["name"] == "sleep_on"
        requests = [e for e in events if e.get("cat") == "request" and e["tid"] == rank + 1]
        assert len(requests) == steps
    # Without -o it goes to standard output.
    assert json.loads(run("trace", str(os.getpid())).stdout)["traceEvents"]


def test_only_the_last_time_is_shown(engine: mpspmd.Engine) -> None:
    for _ in range(5):  # before
        engine.execute_model(-1, 0)
    engine.collective_rpc("sleep_on", args=(0, 1.0))
    engine.execute_model(-1, 0)
    trace = json.loads(run("trace", str(os.getpid()), "--last", "500ms").stdout)
    assert len([e for e in trace["traceEvents"] if e.get("cat") == "step"]) <= 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/nowhere.dump"], 1, "mpspmd-trace: /nowhere.dump: No such file or directory"),
        ([__file__], 1, "no dump of this version of mpspmd"),
        (["/dev/zero"], 1, "no dump of this version of mpspmd"),
        (["1", "--last", "soon"], 2, "must be a time such as 5s, 500ms or 2min"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_traced_is_one_line(arguments: list[str], code: int, words: str) -> None:
    done = run("trace", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_process_that_is_no_engine_cannot_be_traced() -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        done = run("trace", str(other.pid))
        other.kill()
    expected = (1, "", f"mpspmd-trace: process {other.pid} is no engine\n")
    assert (done.returncode, done.stdout, done.stderr) == expected


def test_an_engine_that_records_nothing_says_so() -> None:
    program = (
        "import mpspmd, os, sys; sys.path.insert(0, sys.argv[1]); import watched_workers\n"
        "engine = mpspmd.Engine(watched_workers.Stepper, world_size=1, config=mpspmd.RuntimeConfig("
        "record_steps=0))\nprint(os.getpid(), flush=True); sys.stdin.read(); engine.shutdown()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        done = run("trace", pid)
        other.communicate()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mpspmd-trace: engine {pid} records nothing: MPSPMD_RECORD_STEPS=0\n"
