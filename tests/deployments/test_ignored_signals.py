"""A signal that was ignored at the start of a program stays ignored: nohup, background jobs of a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from start_notes import without_start_notes
from traces import HERE, Traces

pytestmark = pytest.mark.timeout(120)

_IGNORE = "trap '' HUP INT QUIT;"
_START = "from mpspmd.cli.launch.main import main; main()"
_LAUNCHER = f"exec {sys.executable} -c '{_START}' -n 1 {HERE}/waiting.py"


def _ignored(pid: int) -> set[int]:
    """What a process ignores, by /proc."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            mask = int(line.split()[1], 16)
            return {number for number in range(1, 32) if mask >> (number - 1) & 1}
    raise AssertionError("no SigIgn")


@pytest.mark.parametrize("how", ["launched", "alone"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    traces: Traces, eventually: Any, how: str
) -> None:
    command = _LAUNCHER if how == "launched" else f"exec {sys.executable} {HERE}/waiting.py"
    program = subprocess.Popen(
        ["/bin/sh", "-c", f"{_IGNORE} {command}"],
        cwd=traces.folder,
        env=traces.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running = traces.folder / "running"
    eventually(running.exists, "the engine and its ranks run", 60)
    engine, rank = (int(pid) for pid in running.read_text().split())
    wanted = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}
    for number in wanted:
        for pid in (program.pid, engine, rank):
            os.kill(pid, number)
    assert [_ignored(pid) & wanted for pid in (program.pid, engine, rank)] == [wanted] * 3
    (traces.folder / "end").touch()
    out, err = program.communicate(timeout=60)
    running.unlink()
    (traces.folder / "end").unlink()
    assert (program.returncode, out, without_start_notes(err)) == (0, "ok\n", "")


@pytest.mark.parametrize("ignored", [(), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)])
def test_what_is_ignored_is_ignored_while_a_process_is_started(
    ignored: tuple[signal.Signals, ...],
) -> None:
    """A new process inherits what is ignored, but no handler."""
    script = (
        "import signal, subprocess, sys\n"
        f"for number in {[int(number) for number in ignored]}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "from mpspmd.processes.signals import signals_deferred\n"
        "with signals_deferred():\n"
        "    subprocess.run(['grep', 'SigIgn', '/proc/self/status'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    mask = int(done.stdout.split()[1], 16)
    assert {
        number for number in (signal.SIGTERM, signal.SIGINT) if mask >> (number - 1) & 1
    } == set(ignored)
