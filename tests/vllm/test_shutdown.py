"""However vLLM ends, nothing of it stays: no process, no shared memory, no folder, no traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers, complaints, wait_until_gone
from vllm_server import Server

HERE = Path(__file__).parent


@pytest.mark.slow  # test_executor.py and test_server.py shut down too
def test_llm_shuts_down_cleanly(model: Path) -> None:
    before = Leftovers()
    done = subprocess.run(
        [sys.executable, HERE / "shut_down.py", model],
        capture_output=True,
        text=True,
        timeout=300,
        env=before.environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shutdown = done.stdout.partition("SHUTTING DOWN")[2] + done.stderr.partition("SHUTTING DOWN")[2]
    assert complaints(shutdown) == []
    assert before.new_files(within_s=20) == set()
    seconds = re.search(r"executor (\S+) workers (\S+) ranks gone (\S+) llm (\S+)", done.stdout)
    assert seconds is not None, done.stdout[-3000:]
    executor, workers, _, llm = map(float, seconds.groups())
    # Ten times what is normal: the figures themselves are in the README.
    assert executor - workers < 5
    assert llm < 30


@pytest.mark.parametrize(
    "moment",
    [
        # EngineCore is there, and no rank is.
        pytest.param("(EngineCore pid=", marks=pytest.mark.slow),
        pytest.param("world_size=2 rank=0", marks=pytest.mark.slow),  # the ranks meet
        pytest.param("Starting to load model", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_starting_leaves_nothing(model: Path, tmp_path: Path, moment: str) -> None:
    before = Leftovers()
    server = Server(model, tmp_path / "log.txt", env=before.environment)
    try:
        server.wait_for_log(moment)
        left = server.stop()
        assert left == []
        assert before.new_files(within_s=20) == set()
        assert complaints(server.log.read_text()) == []
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seconds", [2 + 1.9 * moment for moment in range(20)])
def test_killing_everything_leaves_no_segment_of_ours(
    model: Path, tmp_path: Path, eventually: Any, seconds: float
) -> None:
    server = Server(model, tmp_path / "log.txt")
    time.sleep(seconds)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert wait_until_gone(server.process.pid, 20) == []
    # The lock of a start has a name, which the janitor removes when the last process is gone.
    eventually(lambda: not [n for n in os.listdir("/dev/shm") if "mpspmd" in n], "no files")
