"""A rank's process, seen from the engine: what is known of it, and that a signal never hits another."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mpspmd.processes import process as processes
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.exit_status import ONLY_THE_LAUNCHER_KNOWS, PENDING, TAKEN
from mpspmd.processes.pidfd import wait_readable
from mpspmd.processes.proc import read_stat
from mpspmd.processes.process import Process

pytestmark = pytest.mark.timeout(30)

_WAITS = "import sys; sys.stdin.read()"


class Started:
    """A process that waits, and what an engine holds of it."""

    def __init__(self, is_child: bool) -> None:
        ours, its = socket.socketpair()
        self.popen = subprocess.Popen([sys.executable, "-S", "-c", _WAITS], stdin=its.fileno())
        its.close()
        self.line = ours
        self.process = Process(self.popen.pid, ours.fileno(), ours.close, is_child=is_child)

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture(params=["pidfd", "no pidfd", "pidfds take no signals"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the system allows."""

    def refuse(*args: object) -> Any:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no pidfd":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    elif request.param == "pidfds take no signals":
        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["child", "launched"])
def started(request: pytest.FixtureRequest, system: str) -> Iterator[Started]:
    started = Started(request.param)
    yield started
    started.popen.kill()
    started.popen.wait()
    started.process.close()


def test_it_lives_until_it_is_killed_and_its_signal_is_known(started: Started) -> None:
    process = started.process
    assert process.is_alive()
    assert (process.exit_code, process.exit_reason()) == (None, PENDING)
    started.kill()
    process.join(10)
    assert not process.is_alive()
    assert process.exit_code == -9
    assert process.exit_reason().startswith("killed by SIGKILL")


def test_its_sentinel_ends_a_wait_when_it_ends(started: Started) -> None:
    assert not wait_readable(started.process.sentinel, 0.0)
    started.kill()
    assert wait_readable(started.process.sentinel, 10.0)


def test_its_exit_code_is_known(started: Started) -> None:
    process = started.process
    started.line.shutdown(socket.SHUT_RDWR)
    process.join(10)
    assert (process.exit_code, process.exit_reason()) == (0, "exit code 0")


def test_a_signal_reaches_it(started: Started) -> None:
    started.process.send_signal(signal.SIGTERM)
    started.process.join(10)
    assert started.process.exit_code == -signal.SIGTERM


def test_one_that_another_has_reaped_is_gone_and_gets_no_signal(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    started.popen.kill()
    started.popen.wait()
    sent: list[object] = []
    process = started.process
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *args: sent.append(args))
        process.send_signal(signal.SIGTERM)
    assert not process.is_alive()
    assert sent == []
    # Linux 6.15 and later tell whoever has a pidfd.
    unknown = TAKEN if process._is_child else ONLY_THE_LAUNCHER_KNOWS
    assert process.exit_reason().startswith((unknown, "killed by SIGKILL"))


def test_another_that_has_got_its_number_is_not_taken_for_it(
    started: Started, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the number came around while nobody looked: the kernel shows another time of its start."""
    if system == "pidfd":
        pytest.skip("a pidfd is never another process's")
    sent: list[object] = []

    def reused(pid: int) -> Any:
        stat = read_stat(pid)
        return stat and stat._replace(began=stat.began + 1)

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *args: sent.append(args))
        patch.setattr(processes, "read_stat", reused)
        started.process.send_signal(signal.SIGTERM)
    assert sent == []
    if system == "no pidfd":
        assert not started.process.is_alive()


def test_one_that_has_ended_before_it_is_looked_at_is_gone(system: str) -> None:
    ours, its = socket.socketpair()
    popen = subprocess.Popen([sys.executable, "-S", "-c", _WAITS], stdin=its.fileno())
    its.close()
    popen.kill()
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    process = Process(popen.pid, ours.fileno(), ours.close, is_child=True)
    assert not process.is_alive()
    assert process.exit_reason().startswith("killed by SIGKILL")
    process.close()
    popen.wait()


@pytest.mark.parametrize("name", ["a b", ") Z 1 (", "x) S 1 1 1"])
def test_a_programs_name_with_spaces_and_parentheses_confuses_nobody(name: str) -> None:
    script = (
        f"import sys; open('/proc/self/comm', 'w').write({name!r}); print(flush=True); {_WAITS}"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        stat = read_stat(popen.pid)
        assert stat is not None
        assert stat.state in "SRD"
        assert stat.status == 0
        popen.kill()
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        stat = read_stat(popen.pid)
        assert stat is not None
        assert (stat.state, stat.status) == ("Z", signal.SIGKILL)


def test_a_death_pipe_is_not_armed_for_one_that_has_ended(started: Started) -> None:
    """The kernel would keep the number, and end whoever has it."""
    death_pipe = DeathPipe()
    death_pipe.arm(started.process)
    assert _pulls(death_pipe)
    death_pipe.close()

    death_pipe = DeathPipe()
    started.kill()
    started.process.join(10)
    death_pipe.arm(started.process)
    assert not _pulls(death_pipe)
    death_pipe.close()


def _pulls(death_pipe: DeathPipe) -> bool:
    return bool(fcntl.fcntl(death_pipe._rank_end.fd, fcntl.F_GETFL) & os.O_ASYNC)
