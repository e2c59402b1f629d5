"""The checks of this folder see what they are for."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest
from traces import Traces


def test_a_run_leaves_nothing_and_harms_nothing(traces: Traces) -> None:
    done = traces.run("echo.py", "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_what_is_left_is_seen(tmp_path_factory: pytest.TempPathFactory, eventually: Any) -> None:
    folder = tmp_path_factory.mktemp("other")
    traces = Traces(folder)
    subprocess.Popen(["sleep", "60"], env=traces.environment)
    (folder / "a file").touch()
    memory = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.posix_fallocate(memory, 0, 1 << 20)
    eventually(traces.processes, "the process has its environment")
    left = traces.left_behind()
    os.close(memory)
    assert [words.split()[0] for words in left] == ["process", "file", str(1 << 20)], left
    assert traces.close() == []


def test_what_is_harmed_is_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("other")
    traces = Traces(folder)
    changed, gone = folder.glob("*stranger*.txt"), folder.glob("vllm_dist_*")
    next(changed).write_text("something else")
    next(gone).unlink()
    traces.stranger.send_signal(signal.SIGTERM)
    words = " ".join(traces.harmed())
    assert "has changed" in words
    assert "is gone" in words
    assert traces.close() == ["the stranger's process was signalled"]
