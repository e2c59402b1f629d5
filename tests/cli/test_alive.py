"""mpspmd-alive: right in each situation, quickly, and without asking the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

HERE = str(Path(__file__).parent)
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import mpspmd, watched_workers
if __name__ == "__main__":
    config = mpspmd.RuntimeConfig(shutdown_timeout_s=1)
    with mpspmd.Engine(
        watched_workers.Stepper, world_size=2, args=("dist" in sys.argv,), config=config
    ) as engine:
        engine.execute_model(-1, 0)
        print(*engine.pids, flush=True)
        for line in sys.stdin:
            exec(line)
"""


class Running:
    """An engine in a process of its own, which does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.ranks = [int(pid) for pid in process.stdout.readline().split()]

    @property
    def pid(self) -> int:
        return self.process.pid

    def do(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, HERE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests after which it goes on."""
    with running() as engine:
        yield engine


@pytest.fixture
def engine() -> Iterator[Running]:
    with running() as engine:
        yield engine


def alive(pid: int | None, stalled_after: float = 60) -> tuple[int, str]:
    arguments = [] if pid is None else [str(pid)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mpspmd",
            "alive",
            *arguments,
            "--stalled-after",
            str(stalled_after),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    return done.returncode, done.stdout


def test_an_idle_engine_is_alive_however_long_it_is_idle(shared: Running, eventually: Any) -> None:
    # The limit is shorter than the idle time, as if an hour had passed with the usual one.
    eventually(lambda: alive(shared.pid, 0.001) == (0, f"engine {shared.pid} is idle\n"), "idle")


def test_a_long_step_is_alive_until_the_limit(
    shared: Running, eventually: Any, tmp_path: Path
) -> None:
    go, both = tmp_path / "go", "rank 0 in compute, rank 1 in compute"
    shared.do(f"engine.collective_rpc('compute', ({str(go)!r},))")
    try:
        eventually(lambda: both in alive(shared.pid)[1], "the step has begun")
        code, line = alive(shared.pid)
        assert (code, "is busy" in line) == (0, True)
        time.sleep(1)
        code, line = alive(shared.pid, 1)
    finally:
        go.touch()
    assert code == 1
    assert "has stalled for" in line
    assert both in line
    eventually(lambda: "idle" in alive(shared.pid)[1], "it is done")


@pytest.mark.parametrize("busy", [False, True])
def test_a_rank_that_is_stopped_is_not_alive(shared: Running, eventually: Any, busy: bool) -> None:
    os.kill(shared.ranks[1], signal.SIGSTOP)
    if busy:
        shared.do("engine.execute_model(-1, 0)")
    eventually(lambda: alive(shared.pid)[0] == 1, "it is noticed")
    assert f"rank 1 (pid {shared.ranks[1]}) is stopped" in alive(shared.pid)[1]
    os.kill(shared.ranks[1], signal.SIGCONT)
    eventually(lambda: alive(shared.pid)[0] == 0, "it goes on")


def test_a_collective_that_one_rank_never_joins_is_a_stall(eventually: Any) -> None:
    with running("dist") as engine:
        engine.do("engine.collective_rpc('reduce_without', (1,))")
        eventually(lambda: "rank 0 in reduce_without" in alive(engine.pid)[1], "it has begun")
        assert alive(engine.pid)[0] == 0
        time.sleep(1)
        code, line = alive(engine.pid, 1)
        assert (code, "has stalled" in line) == (1, True)
        assert "rank 0 in reduce_without, rank 1 waiting" in line


def test_a_dead_rank_is_named(engine: Running, eventually: Any) -> None:
    os.kill(engine.ranks[0], signal.SIGKILL)
    eventually(lambda: alive(engine.pid)[0] == 1, "it is noticed")
    assert f"rank 0 (pid {engine.ranks[0]}) is dead" in alive(engine.pid)[1]


def test_an_engine_whose_main_thread_is_stuck_in_c_stalls(engine: Running, eventually: Any) -> None:
    # It holds the interpreter's lock, so no thread of the engine takes the reply.
    engine.do(
        "f = engine.collective_rpc('sleep_on', (0, 0.2), non_block=True); import ctypes; "
        "ctypes.PyDLL(None).sleep(60)"
    )
    eventually(lambda: "reply waits for the engine" in alive(engine.pid)[1], "it is stuck")
    assert alive(engine.pid)[0] == 0
    time.sleep(1)
    assert alive(engine.pid, 1)[0] == 1
    # Without any call under way it shows after ten seconds: the supervisor doesn't run.
    eventually(lambda: "threads haven't run" in alive(engine.pid, 1)[1], "it is noticed")


def test_an_engine_that_is_stopped_is_not_alive(shared: Running, eventually: Any) -> None:
    stopped = (1, f"engine {shared.pid} is stopped (kill -STOP, Ctrl-Z)\n")
    os.kill(shared.pid, signal.SIGSTOP)
    try:
        eventually(lambda: alive(shared.pid) == stopped, "it is stopped")
    finally:
        os.kill(shared.pid, signal.SIGCONT)
    eventually(lambda: alive(shared.pid)[0] == 0, "it goes on")


def test_no_engine_is_not_alive(engine: Running) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        found = alive(other.pid)
        other.kill()
    assert found == (1, f"process {other.pid} is no engine\n")
    assert alive(engine.ranks[0]) == (1, f"process {engine.ranks[0]} is no engine\n")
    engine.process.kill()
    engine.process.wait()
    assert alive(engine.pid) == (1, f"process {engine.pid} is no engine\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_engine_cannot_be_read(shared: Running) -> None:
    program = (
        "import os\nfrom mpspmd.cli.alive import alive\nos.setuid(12345)\n"
        f"print(alive({shared.pid}, 60))\nprint(alive(None, 60))"
    )
    run = [sys.executable, "-c", program]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert f"process {shared.pid} can't be read: run as its user" in out
    assert "no engine of this user is running" in out
    assert out.count("alive=False") == 2


def test_it_is_quick_and_imports_nothing_large(shared: Running) -> None:
    program = (
        "import sys\nfrom mpspmd.cli.alive import alive\n"
        f"assert alive({shared.pid}, 60).alive\n"
        "print(*{'numpy', 'torch', 'typer', 'rich', 'psutil', 'zmq', 'msgspec'} & sys.modules.keys())"
    )
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "\n"
    took = []
    for _ in range(5):
        began = time.monotonic()
        alive(shared.pid)
        took.append(time.monotonic() - began)
    assert min(took) < 3  # ten times what it may take


_SECONDS = "argument --stalled-after: {}: must be a number of seconds above 0 (see"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["x"], "argument pid: "),
        (["--stalled-after", "0"], _SECONDS.format("'0'")),
        (["--stalled-after", "soon"], _SECONDS.format("'soon'")),
        (["--stalled-after", "nan"], _SECONDS.format("'nan'")),
    ],
)
def test_a_bad_argument_is_one_line(arguments: list[str], error: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpspmd", "alive", *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mpspmd-alive: {error}")
    assert done.stderr.count("\n") == 1
