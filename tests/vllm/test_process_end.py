"""How EngineCore takes signals, and what it says when its ranks are killed before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# As vLLM's EngineCore notes a signal, in a process of its name.
SCRIPT = """
import multiprocessing, os, signal, sys
import mpspmd
from mpspmd.errors import RankDied
from mpspmd.vllm import process_end

class Worker(mpspmd.Worker):
    def work(self):
        print("working", self.ctx.rank, os.getpid(), flush=True)
        signal.pause()

def run():
    shutdown_requested = False

    def note(number, frame):
        nonlocal shutdown_requested
        shutdown_requested = True

    signal.signal(signal.SIGTERM, note)
    if sys.argv[1] == "told and killed":
        process_end._KILLED_WITHIN_S = 60  # however late on a busy machine
    if sys.argv[1] != "not told":
        signal.raise_signal(signal.SIGTERM)
    print("engine", os.getpid(), flush=True)
    with mpspmd.Engine(Worker, world_size=1, on_cause=lambda error: process_end.await_own_kill()) as engine:
        try:
            engine.collective_rpc("work")
        except RankDied:
            print("failed", flush=True)

if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=run, name="EngineCore").start()
"""


@pytest.fixture
def engine_core(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, request.param],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _kill_rank(process: subprocess.Popen[str]) -> int:
    """The engine's pid."""
    assert process.stdout is not None
    engine = int(process.stdout.readline().split()[-1])
    os.kill(int(process.stdout.readline().split()[-1]), signal.SIGKILL)
    return engine


@pytest.mark.parametrize("engine_core", ["told and killed"], indirect=True)
def test_engine_core_that_is_killed_after_its_ranks_says_nothing(
    engine_core: subprocess.Popen[str],
) -> None:
    engine = _kill_rank(engine_core)
    time.sleep(0.05)  # ten times what it takes to notice
    os.kill(engine, signal.SIGKILL)
    out, err = engine_core.communicate(timeout=60)
    assert (out, err) == ("", "")


@pytest.mark.parametrize("engine_core", ["told", "not told"], indirect=True)
def test_engine_core_that_lives_on_tells_of_a_dead_rank(
    engine_core: subprocess.Popen[str],
) -> None:
    _kill_rank(engine_core)
    out, err = engine_core.communicate(timeout=60)
    assert out == "failed\n"
    assert "died in work" in err


# vLLM's handler, with the variables of the function around it.
SIGNALLED = """
import multiprocessing, signal, sys
from mpspmd.vllm.process_end import exiting_at_signals

def run():
    engine_core, shutdown_requested = None, False

    def note(number, frame):
        nonlocal shutdown_requested
        shutdown_requested = True
        if engine_core is not None:
            print("ends by itself")

    signal.signal(signal.SIGTERM, note)
    if sys.argv[1] == "made":
        engine_core = object()
    if sys.argv[1] == "ignoring":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with exiting_at_signals():
            signal.raise_signal(signal.SIGINT if sys.argv[1] == "ignoring" else signal.SIGTERM)
            print("goes on")
    except SystemExit:
        print("exits")

if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=run, name="EngineCore").start()
"""


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("made", "ends by itself\ngoes on\n"),
        ("being made", "exits\n"),
        ("ignoring", "goes on\n"),
    ],
)
def test_only_an_engine_core_that_is_being_made_stops_at_a_signal(
    state: str, expected: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SIGNALLED)
    done = subprocess.run([sys.executable, script, state], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (expected, "")
