"""Process: a rank's process, seen from the engine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from mpspmd.machine.cgroup import MemoryKiller
from mpspmd.naming import on_node
from mpspmd.processes.exit_status import ONLY_THE_LAUNCHER_KNOWS, PENDING, TAKEN, describe_exit
from mpspmd.processes.pidfd import (
    P_PIDFD,
    exit_code_from_pidfd,
    open_pidfd,
    signal_by_pidfd,
    wait_readable,
)
from mpspmd.processes.proc import Stat, read_stat

_POLL_S = 0.1
"""How often a process is polled if no descriptor announces its end."""


class Usage(NamedTuple):
    """What the kernel tells of a running process."""

    state: str
    """The kernel's word: running, sleeping, disk-sleep, stopped, tracing-stop."""
    cpu_s: float
    """The CPU time that the process has used, in seconds."""


class Process:
    """A process that has just been started, or that has just connected. Any thread.

    As soon as a process has been reaped, another one may get its pid. Other code may reap this one: the
    program may call waitpid(-1), and the kernel reaps where SIGCHLD is ignored. So a pidfd stands for the
    process. Where the system refuses pidfds, the time of the process's start is compared before its pid is
    used.
    """

    node: int = 0
    """Which of the run's nodes it is on."""
    lost_with: tuple[int, ...] = ()
    """The ranks of its node, if it has ended because the whole node is lost."""

    def __init__(
        self, pid: int, pipe: int, close_pipe: Callable[[], None], *, is_child: bool
    ) -> None:
        """`pipe` is the descriptor of a pipe or socket, of which only the process holds the other end."""
        self.pid = pid
        self._pipe = pipe
        self._close_pipe = close_pipe
        self._is_child = is_child
        self._lock = threading.RLock()
        self._exit_code: int | None = None
        self._memory_killer = MemoryKiller()
        self._pidfd = open_pidfd(pid)
        stat = read_stat(pid)
        self._began = stat.began if stat else None
        # Check this last: as long as the process holds its end, no other process can have got the pid.
        self._gone = wait_readable(pipe, 0.0)
        if self._gone:
            self._close_pidfd()
            if is_child:
                self._exit_code = _reap(os.P_PID, pid)

    @property
    def pid_and_node(self) -> str:
        return f"{self.pid}{on_node(self.node)}"

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable when the process has ended.

        Where there are no pidfds, it isn't readable before all processes have ended that it has forked.
        """
        return self._pidfd if self._pidfd >= 0 else self._pipe

    def is_alive(self) -> bool:
        with self._lock:
            if not self._gone and self._has_ended():
                self._exit_code = self._take_exit_code()
                self._gone = True
            return not self._gone

    def join(self, timeout_s: float) -> None:
        """Waits until it has ended."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive() and (left := deadline - time.monotonic()) > 0:
            wait_readable(self.sentinel, min(left, _POLL_S))

    @property
    def exit_code(self) -> int | None:
        """Minus the signal's number for a signal. None while it runs, or when nobody can tell."""
        self.is_alive()
        return self._exit_code

    def exit_reason(self) -> str:
        """Why it has ended, in words; PENDING while the exit status isn't known."""
        code = self._early_exit_code() if self.is_alive() else self._exit_code
        if code is None:
            if not self._gone:
                return PENDING
            return TAKEN if self._is_child else ONLY_THE_LAUNCHER_KNOWS
        note = self._memory_killer.note() if code == -signal.SIGKILL else ""
        return describe_exit(code) + note

    def usage(self) -> Usage | None:
        """None when it has ended."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            usage = Usage(process.status(), float(times.user + times.system))
            # Check this last: while the process is alive, no other one has its pid.
            return usage if self.is_alive() else None
        return None

    def send_signal(self, number: int) -> None:
        """Does nothing when it has ended: no other process gets the signal."""
        with self._lock:
            if not self.is_alive():
                return
            if not signal_by_pidfd(self._pidfd, number) and self._stat() is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def close(self) -> None:
        """Call this when it has ended, or when nobody needs to know. More than once does nothing."""
        with self._lock:
            self._gone = True
            self._close_pidfd()
            self._close_pipe()

    def close_copies(self) -> None:
        """For a fork of this process, whose child this isn't."""
        self._lock = threading.RLock()  # another thread of the parent may have held the old one
        self.close()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _has_ended(self) -> bool:
        if self._pidfd >= 0:
            return wait_readable(self._pidfd, 0.0)
        stat = self._stat()
        if stat is None:
            return True
        # A process whose main thread has ended looks like a zombie, though other threads still run. Its
        # parent can't reap it yet.
        return stat.state in "ZX" and not (self._is_child and is_running(self.pid))

    def _stat(self) -> Stat | None:
        """None also if another process has the pid now."""
        stat = read_stat(self.pid)
        return stat if stat and stat.began == self._began else None

    def _take_exit_code(self) -> int | None:
        if self._is_child:
            code = None
            if self._pidfd >= 0:
                code = _reap(P_PIDFD, self._pidfd)
            if code is None and self._stat() is not None:
                code = _reap(os.P_PID, self.pid)
            return exit_code_from_pidfd(self._pidfd) if code is None else code
        stat = self._stat()  # until its parent has reaped it
        if stat and stat.state in "ZX":
            return os.waitstatus_to_exitcode(stat.status)
        return exit_code_from_pidfd(self._pidfd)

    def _early_exit_code(self) -> int | None:
        """The exit code of a process that is ending. The kernel shows it before it frees the process's
        memory, and only then can the process be reaped. None if the code is 0, or isn't shown."""
        stat = self._stat()
        return os.waitstatus_to_exitcode(stat.status) if stat and stat.status else None


def wait_for_end_of_parent(pid: int) -> None:
    """Returns when the parent, whose number was `pid`, has ended."""
    pidfd = open_pidfd(pid)
    while os.getppid() == pid:
        # While getppid() still returns the pid, the pidfd surely stands for the parent.
        if pidfd < 0 or not wait_readable(pidfd, None):
            time.sleep(_POLL_S)
    if pidfd >= 0:
        os.close(pidfd)


def _reap(what: int, number: int) -> int | None:
    """The exit code of a child that has ended, if nobody else has reaped it."""
    try:
        result = os.waitid(what, number, os.WEXITED | os.WNOHANG)
    except OSError:  # ChildProcessError; before Linux 5.4 waitid() takes no pidfd
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def is_running(child: int) -> bool:
    """Whether a child hasn't ended. It isn't reaped here. False also if somebody else has reaped it."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
