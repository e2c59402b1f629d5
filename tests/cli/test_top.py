"""mpspmd-top shows what is really going on, from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpspmd
from mpspmd.observe.watch import Watcher

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import workers

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def engine() -> Iterator[mpspmd.Engine]:
    with mpspmd.Engine(workers.Calculator, world_size=2) as engine:
        yield engine


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from mpspmd.cli.top import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _own(views: list[dict[str, Any]], engine: mpspmd.Engine) -> dict[str, Any]:
    """Other tests' engines may live in this process as well."""
    return next(
        view for view in views if [rank["stats"]["pid"] for rank in view["ranks"]] == engine.pids
    )


def test_the_figures_are_psutils_and_the_engines_own(engine: mpspmd.Engine) -> None:
    for _ in range(5):  # on a busy machine all may be late while it looks
        view = _while_half_busy(engine)
        if all(_has_half_busy_rates(rank) for rank in view["ranks"]):
            break
    for rank in view["ranks"]:
        assert _has_half_busy_rates(rank), rank


def _while_half_busy(engine: mpspmd.Engine) -> dict[str, Any]:
    """What it shows, half of the time in a method while it looks."""
    before = engine.stats().steps
    top = _start("--json")
    while top.poll() is None:
        engine.collective_rpc("sleep", args=(0.01,))
        time.sleep(0.01)
    out, err = top.communicate()
    assert top.returncode == 0, err
    view = _own(json.loads(out), engine)
    assert before < view["steps"] <= engine.stats().steps
    assert view["pid"] == os.getpid()
    for rank in view["ranks"]:
        memory = psutil.Process(rank["stats"]["pid"]).memory_info().rss
        assert abs(rank["memory_bytes"] - memory) < 0.2 * memory
        assert view["steps"] - rank["stats"]["step"] <= 1
        assert rank["stats"]["counters"]["requests"] <= engine.stats().steps
    return view


def _has_half_busy_rates(rank: dict[str, Any]) -> bool:
    """Each step takes 20 ms or more, half of it in the method; on a busy machine, more or less of it."""
    rates = 0 < rank["steps_per_s"] < 60 and 0 <= rank["cpu_percent"] < 60
    return rates and 5 < rank["busy_percent"] < 95


def test_a_rank_that_hangs_is_seen_in_its_method_with_its_lag(
    engine: mpspmd.Engine, eventually: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    futures = [engine.collective_rpc("wait_for", args=(str(go), None, 1), non_block=True)]
    eventually(lambda: _is_in(engine, 1, "wait_for"), "rank 1 hangs")
    futures += [engine.collective_rpc("echo", args=(0,), non_block=True) for _ in range(3)]
    eventually(lambda: engine.stats().ranks[0].lag_steps == 0, "rank 0 has read all")
    eventually(lambda: engine.stats().ranks[0].phase == "waiting", "rank 0 is idle")
    top = _start("--once", str(os.getpid()))
    out, err = top.communicate()
    go.touch()
    assert (top.returncode, err) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    idle, hanging = (row for row in rows if row[1:2] and row[1] in map(str, engine.pids))
    assert idle[1:3] == [str(engine.pids[0]), "idle"]
    assert hanging[:3] == ["1", str(engine.pids[1]), "wait_for"]
    assert hanging[3].endswith(" s") or hanging[3].endswith(" ms")
    assert hanging[5] == "3"
    for future in futures:
        future.result()


def _is_in(engine: mpspmd.Engine, rank: int, method: str) -> bool:
    seen = engine.stats().ranks[rank]
    return (seen.phase, seen.method) == ("running", method)


def test_engines_come_and_go(engine: mpspmd.Engine) -> None:
    watcher = Watcher()

    def seen() -> dict[tuple[int, ...], int]:
        """The steps of each engine, by its ranks' processes."""
        watcher.find()
        return {tuple(rank.stats.pid for rank in view.ranks): view.steps for view in watcher.read()}

    assert tuple(engine.pids) in seen()
    with mpspmd.Engine(workers.Calculator, world_size=1) as other:
        both = {tuple(engine.pids), tuple(other.pids)}
        assert both <= seen().keys()
        other.collective_rpc("add", args=(1,))
        assert seen()[tuple(other.pids)] == 1
    assert tuple(engine.pids) in seen()
    assert tuple(other.pids) not in seen()


def test_engines_of_one_process_are_not_taken_for_each_other(
    eventually: Any, tmp_path: Path
) -> None:
    """Their descriptors are reused: an older engine's page may come after a newer one's ring."""
    engines = [mpspmd.Engine(workers.Calculator, world_size=1) for _ in range(2)]
    engines.pop(0).shutdown()
    engines.append(mpspmd.Engine(workers.Calculator, world_size=1))
    try:
        for number, busy in enumerate(engines):
            go = tmp_path / f"{number}"
            futures = [busy.collective_rpc("wait_for", args=(str(go),), non_block=True)]
            futures += [busy.collective_rpc("echo", args=(0,), non_block=True) for _ in range(3)]
            eventually(lambda busy=busy: _is_in(busy, 0, "wait_for"), "it reads no more")
            watcher = Watcher(os.getpid())
            watcher.find()
            seen = {view.ranks[0].stats.pid: view.ranks[0].stats for view in watcher.read()}
            for engine in engines:
                unread = engine.stats().ranks[0].unread_bytes
                assert (unread > 0) == (engine is busy)
                assert seen[engine.pids[0]].unread_bytes == unread
            go.touch()
            for future in futures:
                future.result()
    finally:
        for engine in engines:
            engine.shutdown()


def test_watching_needs_nothing_of_the_watched(engine: mpspmd.Engine, eventually: Any) -> None:
    """Not even that it runs."""
    rank = psutil.Process(engine.pids[0])
    eventually(lambda: engine.stats().ranks[0].phase == "waiting", "rank 0 is idle")
    rank.suspend()
    try:
        future = engine.collective_rpc("rank", non_block=True)
        top = _start("--json")
        out, _ = top.communicate()
        stopped = _own(json.loads(out), engine)["ranks"][0]
        assert (stopped["stats"]["phase"], stopped["stats"]["lag_steps"]) == ("waiting", 1)
    finally:
        rank.resume()
    assert future.result() == [0, 1]


def test_what_is_no_engine_is_said_to_be_none() -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        top = _start("--once", str(other.pid))
        _, err = top.communicate()
        other.kill()
    assert top.returncode == 1
    assert f"process {other.pid} is no engine" in err


def test_a_bad_argument_is_one_line() -> None:
    top = _start("everything")
    out, err = top.communicate()
    assert (top.returncode, out) == (2, "")
    assert err.startswith("mpspmd-top: Invalid value for '[RUN]'")
    assert err.count("\n") == 1


def test_an_engine_of_another_version_is_said_to_be_one() -> None:
    program = (
        "import os, sys\n"
        "fd = os.open('/dev/shm', os.O_TMPFILE | os.O_RDWR, 0o600)\n"
        "os.write(fd, b'mspmRing' + bytes([255, 0, 0, 0]) + bytes(5000))\n"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        _, err = _start("--once", str(other.pid)).communicate()
        other.communicate()
    assert f"engines of another version of mpspmd aren't shown: pid {other.pid}" in err


def _has_found_an_engine(pid: int) -> bool:
    """It holds an engine's memory open. On a pipe nothing is printed before its end."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(FileNotFoundError):
        return any(
            os.readlink(f"{folder}/{fd}").startswith("/dev/shm/#") for fd in os.listdir(folder)
        )
    return False


def test_it_refreshes_until_ctrl_c(engine: mpspmd.Engine, eventually: Any) -> None:
    for seconds in (1, 5, 20):  # a busy machine may take longer to the first picture
        top = _start(str(os.getpid()))
        eventually(lambda top=top: _has_found_an_engine(top.pid), "an engine is watched", 20)
        time.sleep(seconds)
        top.send_signal(signal.SIGINT)
        out, err = top.communicate()
        if f"engine {os.getpid()}" in out:
            break
    assert (top.returncode, err) == (0, "")
    assert f"engine {os.getpid()}" in out
