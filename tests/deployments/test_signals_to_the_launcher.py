"""Signals to mpspmd-launch alone: as Slurm, `docker stop` and systemd with KillMode=mixed send them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from start_notes import without_start_notes
from traces import HERE, Traces, program, skip_unless_it_works

pytestmark = pytest.mark.timeout(120)

_OPTIONS = {"engine": ["-n", "1"], "ranks": ["-n", "2", "--ranks-only", "--shutdown-timeout=300"]}
_PROCESSES = {"engine": ["engine", "0"], "ranks": ["0", "1"]}
_IGNORING_SIGCHLD = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""  # a shell can't ignore it


class _Marks:
    """The files that the program writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pid(self, who: str) -> int:
        return int((self._folder / f"{who}-runs").read_text())

    def who(self, what: str) -> list[str]:
        return sorted(path.name.partition("-")[0] for path in self._folder.glob(f"*-{what}"))

    def clear(self) -> None:
        for what in ("runs", "USR1", "ended"):
            for path in self._folder.glob(f"*-{what}"):
                path.unlink()


@pytest.fixture
def marks(traces: Traces) -> Iterator[_Marks]:
    marks = _Marks(traces.folder)
    yield marks
    marks.clear()


def _launcher(
    traces: Traces, what: str, prefix: list[str] | None = None, **kwargs: Any
) -> subprocess.Popen[str]:
    command = ["mpspmd-launch", *_OPTIONS[what], str(HERE / "signalled.py"), what]
    return subprocess.Popen(
        [*(prefix or []), *program(command)],
        cwd=traces.folder,
        env=traces.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **kwargs,
    )


@pytest.mark.parametrize(("what", "who_gets_it"), [("engine", ["engine"]), ("ranks", ["0", "1"])])
def test_sigusr1_is_passed_on_and_sigterm_ends_also_stopped_processes(
    traces: Traces, marks: _Marks, eventually: Any, what: str, who_gets_it: list[str]
) -> None:
    with _launcher(traces, what) as launcher:
        eventually(lambda: marks.who("runs") == sorted(_PROCESSES[what]), "all run", 60)
        launcher.send_signal(signal.SIGUSR1)
        eventually(lambda: marks.who("USR1") == who_gets_it, "it is passed on")
        for who in _PROCESSES[what]:
            _stop(psutil.Process(marks.pid(who)), eventually)
        launcher.send_signal(signal.SIGTERM)
        try:
            out, err = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
    assert (launcher.returncode, out) == (128 + signal.SIGTERM, "")
    assert without_start_notes(err) == ""
    assert marks.who("ended") == sorted(_PROCESSES[what])
    assert marks.who("USR1") == who_gets_it


def test_a_signal_that_was_ignored_is_not_passed_on(
    traces: Traces, marks: _Marks, eventually: Any
) -> None:
    ignoring = ["/bin/sh", "-c", 'trap "" USR1; exec "$@"', "sh"]
    with _launcher(traces, "ranks", ignoring) as launcher:
        eventually(lambda: marks.who("runs") == ["0", "1"], "all run", 60)
        launcher.send_signal(signal.SIGUSR1)
        launcher.send_signal(signal.SIGTERM)
        _, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, err) == (128 + signal.SIGTERM, "")
    assert marks.who("USR1") == []


def test_an_engine_unwinds_when_its_launcher_is_killed_though_it_ignores_ctrl_c(
    traces: Traces, marks: _Marks, eventually: Any
) -> None:
    """A shell's script lets its background jobs ignore it."""
    ignoring = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    with _launcher(traces, "engine", ignoring) as launcher:
        eventually(lambda: marks.who("runs") == ["0", "engine"], "all run", 60)
        launcher.kill()
        launcher.communicate(timeout=60)  # until nobody has its output open
    eventually(lambda: marks.who("ended") == ["0", "engine"], "both unwind")


def test_a_child_from_before_the_run_gets_no_signal(
    traces: Traces, marks: _Marks, eventually: Any
) -> None:
    """A shell's script may start something in the background, and become the launcher."""
    stranger = (
        "import os, signal, sys, time; os.setsid();"
        "signal.signal(signal.SIGUSR1, lambda *_: print('signalled', flush=True));"
        "print('ready', flush=True); signal.pause(); time.sleep(1)"
    )
    shell = ["/bin/sh", "-c", f'{sys.executable} -c "{stranger}" & exec "$@"', "sh"]
    with _launcher(traces, "ranks", shell) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        eventually(lambda: marks.who("runs") == ["0", "1"], "all run", 60)
        launcher.send_signal(signal.SIGUSR1)
        eventually(lambda: marks.who("USR1") == ["0", "1"], "it is passed on")
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(60)
        for process in traces.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert launcher.stdout.read() == ""


def test_how_ranks_end_is_known_though_sigchld_was_ignored(traces: Traces) -> None:
    command = program(["mpspmd-launch", "-n", "1", "--ranks-only", "--no-python", "false"])
    done = traces.run(sys.executable, "-c", _IGNORING_SIGCHLD, *command)
    assert done.returncode == 1
    assert "mpspmd-launch: false failed: rank 0 " in done.stderr


def test_sigterm_ends_a_launcher_that_is_process_1_and_has_just_begun(
    traces: Traces, eventually: Any
) -> None:
    """The kernel drops a signal to process 1 that has no handler for it."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    skip_unless_it_works(*prefix, "true")
    with _launcher(traces, "ranks", prefix) as unshare:
        launcher = _first_child(unshare.pid, eventually)
        eventually(lambda: _has_loaded(launcher, "libtorch"), "torch is imported", 60)
        launcher.send_signal(signal.SIGTERM)
        out, err = unshare.communicate(timeout=60)
    assert (unshare.returncode, out, err) == (128 + signal.SIGTERM, "", "")


def _stop(process: psutil.Process, eventually: Any) -> None:
    process.suspend()
    eventually(lambda: process.status() == psutil.STATUS_STOPPED, "it has stopped")


def _first_child(pid: int, eventually: Any) -> psutil.Process:
    eventually(psutil.Process(pid).children, "it has a child")
    return psutil.Process(pid).children()[0]


def _has_loaded(process: psutil.Process, library: str) -> bool:
    return any(library in each.path for each in process.memory_maps())
