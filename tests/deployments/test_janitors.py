"""A run's janitor: nothing but its work's end ends it, and it leaves nothing of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from start_notes import without_start_notes
from traces import Traces, program, skip_unless_it_works

pytestmark = pytest.mark.timeout(60)


def _ignores(pid: int, signals: set[int]) -> bool:
    """By /proc; and none of them is blocked."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    masks = {line[0]: int(line[1], 16) for line in lines if line[0] in ("SigBlk:", "SigIgn:")}
    return not masks["SigBlk:"] and all(masks["SigIgn:"] >> (each - 1) & 1 for each in signals)


def test_signals_to_all_processes_do_not_keep_it_from_its_work(
    traces: Traces, eventually: Any
) -> None:
    """The fixture `traces` sees what is left behind."""
    engine = subprocess.Popen(
        program(["janitors.py", "wait"]),
        env=traces.environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        (janitor,) = (
            each for each in traces.processes() if "janitor_process" in str(each.cmdline())
        )
        ends_itself = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGABRT}
        numbers = signal.valid_signals() - ends_itself - {signal.SIGKILL, signal.SIGSTOP}
        # On a busy machine it may begin its work later than the engine.
        eventually(lambda: _ignores(janitor.pid, numbers - {signal.SIGCHLD}), "it has begun")
        for number in numbers:
            janitor.send_signal(number)
        time.sleep(0.1)  # they have come
        assert janitor.status() != psutil.STATUS_ZOMBIE
        os.killpg(engine.pid, signal.SIGKILL)


@pytest.mark.parametrize("missing", ["/dev/null", "/bin/sh"])
def test_it_needs_neither_a_null_device_nor_a_shell(
    missing: str, traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The fixture `traces` sees what is left behind."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    dev = tmp_path_factory.mktemp("dev")
    (dev / "shm").mkdir()
    hide = {
        "/dev/null": f"cp -a /dev/zero /dev/urandom {dev} && mount --bind {dev} /dev",
        "/bin/sh": "mount --bind /proc/self/environ /bin/sh",
    }[missing]
    skip_unless_it_works(*unshare, "sh", "-c", hide)
    engine = subprocess.Popen(
        [*unshare, "sh", "-c", f'{hide} && exec "$@"', "sh", *program(["janitors.py", "wait"])],
        env=traces.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with engine:
        assert engine.stdout is not None
        ready = engine.stdout.readline()
        os.killpg(engine.pid, signal.SIGKILL)
        assert engine.stderr is not None
        assert (ready, without_start_notes(engine.stderr.read())) == ("ready\n", "")


def test_process_1_keeps_no_zombies_of_them_but_the_last(traces: Traces) -> None:
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    skip_unless_it_works(*prefix, "true")
    done = traces.run("janitors.py", prefix=prefix, timeout_s=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("1 0\n", "1 1\n")
