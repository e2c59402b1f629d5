"""vLLM's watchdog in our ranks: it writes a rank's stacks when the rank is stuck, and at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_steps import run, start, step, submit

from mpspmd.vllm.compat import has_watchdog

pytestmark = pytest.mark.skipif(not has_watchdog(), reason="vLLM has a watchdog since 0.33")


def watching(folder: Path) -> Callable[[Any], None]:
    """In whole seconds, as vLLM wants it."""

    def change(config: Any) -> None:
        config.watchdog_config.dump_dir = str(folder)
        config.watchdog_config.timeout = 3  # a busy machine may take a second for anything
        config.watchdog_config.check_interval = 1

    return change


def dumps(folder: Path, rank: int) -> list[tuple[str, str]]:
    """(reason, stacks) of each that the rank has written."""
    text = "".join(file.read_text() for file in folder.glob(f"*_worker_{rank}_*"))
    return re.findall(r"stack dump #\d+ at .* due to (.*)\n\n((?:.|\n)*?)\n={64}", text)


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_stuck_rank_writes_its_stacks_and_an_idle_one_does_not(
    model: Path, tmp_path: Path, eventually: Any, asynchronous: bool
) -> None:
    folder, go = tmp_path / "dumps", tmp_path / "go"
    executor = start(model, asynchronous=asynchronous, change=watching(folder))
    try:
        run(executor, step("a"))
        stuck = submit(executor, step("b", f"wait {go} 1"))[1]
        eventually(lambda: dumps(folder, 1), "rank 1's stacks")
        go.touch()
        assert stuck.result().req_ids == ["b"]
        assert dumps(folder, 0) == [], "rank 0 waits for a request"
        ((reason, stacks),) = dumps(folder, 1)
        assert reason == "feed timeout"
        assert "_wait_for" in stacks
    finally:
        executor.shutdown()
    assert [[reason for reason, _ in dumps(folder, rank)][-1] for rank in (0, 1)] == [
        "shutdown"
    ] * 2


def test_a_rank_whose_engine_is_killed_writes_where_it_was(
    model: Path, tmp_path: Path, eventually: Any
) -> None:
    folder = tmp_path / "dumps"
    process = subprocess.Popen(
        [sys.executable, __file__, model, folder, tmp_path / "started", tmp_path / "never"],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        eventually((tmp_path / "started").exists, "the step", 600)
        os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: dumps(folder, 0) and dumps(folder, 1), "both ranks' stacks")
        assert [[reason for reason, _ in dumps(folder, rank)] for rank in (0, 1)] == [
            ["shutdown"]
        ] * 2
        assert "_wait_for" in dumps(folder, 1)[0][1]
    finally:
        process.kill()
        process.wait()


def main(model: str, folder: str, started: str, never: str) -> None:
    """An engine whose rank 1 is stuck."""
    import time

    def change(config: Any) -> None:
        # Longer than the test: only the engine's death is to be written.
        watching(Path(folder))(config)
        config.watchdog_config.timeout = 600

    executor = start(Path(model), asynchronous=False, change=change)
    future = submit(executor, step("a", f"wait {never} 1"))[1]
    while executor._engine.stats().ranks[1].phase != "running":
        time.sleep(0.01)
    time.sleep(0.5)  # so that rank 1 is in the step's wait
    Path(started).touch()
    future.result()


if __name__ == "__main__":
    import workload

    workload.set_environment()
    main(*sys.argv[1:])
