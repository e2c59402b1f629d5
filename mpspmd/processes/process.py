"""Process: a rank's process, seen from the engine, known by more than its number."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import threading
import time
from typing import NamedTuple, Protocol

import psutil

from mpspmd.machine.memory_killer import MemoryKiller
from mpspmd.transport.descriptor import above_standard

PENDING = "exit status pending: the kernel still frees its memory"
"""The reason of a death whose exit status can't be had yet."""

TAKEN = "its exit status was taken by another part of this program"
"""The reason of a death of a child that somebody else has waited for, or that SIGCHLD's being ignored has
made the kernel forget."""

ONLY_THE_LAUNCHER_KNOWS = "only its launcher knows its exit status"

_REAPING_S = 0.05
"""How long the kernel may take from a process's end to having recorded its exit status."""

_LOOK_S = 0.1
"""How often a process is looked at whose end nothing announces."""

_P_PIDFD = getattr(os, "P_PIDFD", 3)

# linux/pidfd.h: struct pidfd_info, of which Linux 6.15 and later fill in the exit status for whoever
# held the pidfd when the process ended.
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_GET_INFO = 0xC000FF0B | _INFO.size << 16  # _IOWR(0xFF, 11, struct pidfd_info)


class Owner(Protocol):
    """What holds the engine's end of a process's line."""

    def close(self) -> None: ...


class Usage(NamedTuple):
    """What the kernel tells of a process that runs."""

    state: str
    """The kernel's word for what it does: running, sleeping, disk-sleep, stopped, tracing-stop."""
    cpu_s: float
    """CPU time that it has used."""


class Process:
    """A process that has just been started, or that has just connected. Any thread.

    Its number alone says little: as soon as it has been reaped, another process may get it. And not only
    this class reaps: the program may call waitpid(-1), and where SIGCHLD is ignored the kernel does it.
    So a pidfd stands for the process. Where the system gives none (an old Docker's seccomp filter), the
    time at which the process was started is compared before its number is used.
    """

    def __init__(self, pid: int, line: int, owner: Owner, *, is_child: bool) -> None:
        """`line` is the descriptor of a pipe or socket whose other end is only the process's; `owner`
        closes it."""
        self.pid = pid
        self._line = line
        self._owner = owner
        self._is_child = is_child
        self._lock = threading.RLock()
        self._exit_code: int | None = None
        self._memory_killer = MemoryKiller()
        self._pidfd = _open_pidfd(pid)
        stat = read_stat(pid)
        self._began = stat.began if stat else None
        # Asked last: while the line is held, the number can't have become another's.
        self._gone = _has_ended(line)
        if self._gone:
            self._close_pidfd()
            if is_child:
                self._exit_code = _reap(os.P_PID, pid)

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable when the process has ended.

        It may be late where there are no pidfds, and what the process has forked lives on.
        """
        return self._pidfd if self._pidfd >= 0 else self._line

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
            _poll(self.sentinel, min(left, _LOOK_S))

    @property
    def exit_code(self) -> int | None:
        """Minus the signal's number for a signal. None while it runs, or when nobody can tell."""
        self.is_alive()
        return self._exit_code

    def exit_reason(self) -> str:
        """Why it has ended, in words; PENDING while that isn't known."""
        code = self._early_exit_code() if self.is_alive() else self._exit_code
        if code is None:
            if not self._gone:
                return PENDING
            return TAKEN if self._is_child else ONLY_THE_LAUNCHER_KNOWS
        if code >= 0:
            return f"exit code {code}"
        if code == -signal.SIGKILL:
            return f"killed by SIGKILL{self._memory_killer.words()}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def usage(self) -> Usage | None:
        """None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            usage = Usage(process.status(), float(times.user + times.system))
        except psutil.Error:
            return None
        # Asked last: while it lives, no other process has its number.
        return usage if self.is_alive() else None

    def send_signal(self, number: int) -> None:
        """Does nothing when it has ended: nobody else gets the signal."""
        with self._lock:
            if not self.is_alive():
                return
            if not _signal_by_pidfd(self._pidfd, number) and self._stat() is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def close(self) -> None:
        """When it has ended, or when nobody needs to know any more. More than once does nothing."""
        with self._lock:
            self._gone = True
            self._close_pidfd()
            self._owner.close()

    def close_copies(self) -> None:
        """In a process forked from this one: the process is not its own."""
        self._lock = threading.RLock()
        self.close()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _has_ended(self) -> bool:
        if self._pidfd >= 0:
            return _poll(self._pidfd, 0.0)
        stat = self._stat()
        if stat is None:
            return True
        # Its main thread has; a child that can't be waited for yet has other threads.
        return stat.state in "ZX" and not (self._is_child and _is_awaited(self.pid))

    def _stat(self) -> _Stat | None:
        """What the kernel shows of it, unless its number is another process's by now."""
        stat = read_stat(self.pid)
        return stat if stat and stat.began == self._began else None

    def _take_exit_code(self) -> int | None:
        if self._is_child:
            code = None
            if self._pidfd >= 0:
                code = _reap(_P_PIDFD, self._pidfd)
            if code is None and self._stat() is not None:
                code = _reap(os.P_PID, self.pid)
            return _exit_code_from_pidfd(self._pidfd) if code is None else code
        stat = self._stat()  # until its parent has reaped it
        if stat and stat.state in "ZX":
            return os.waitstatus_to_exitcode(stat.status)
        return _exit_code_from_pidfd(self._pidfd)

    def _early_exit_code(self) -> int | None:
        """Of a process that is ending: the kernel shows it long before it can be waited for, which is
        when its memory has been freed. None where it doesn't, or when the code is 0."""
        stat = self._stat()
        return os.waitstatus_to_exitcode(stat.status) if stat and stat.status else None


def wait_for_end_of_parent(pid: int) -> None:
    """Returns when the parent, whose number was `pid`, has ended."""
    pidfd = _open_pidfd(pid)
    while os.getppid() == pid:
        # Asked before: while it is still the parent, the pidfd is surely its.
        if pidfd < 0 or not _poll(pidfd, None):
            time.sleep(_LOOK_S)
    if pidfd >= 0:
        os.close(pidfd)


class _Stat(NamedTuple):
    """Of /proc/PID/stat."""

    state: str
    parent: int
    began: int
    status: int
    """As waitpid() has it."""


def read_stat(pid: int) -> _Stat | None:
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        # The program's name, in parentheses, may itself have spaces and parentheses.
        fields = file.read().rpartition(")")[2].split()
        return _Stat(fields[0], int(fields[1]), int(fields[19]), int(fields[49]))
    return None


def _open_pidfd(pid: int) -> int:
    """-1 where that isn't allowed, or not known to the kernel or to this Python."""
    with contextlib.suppress(OSError, AttributeError):
        return above_standard(os.pidfd_open(pid))
    return -1


def _signal_by_pidfd(pidfd: int, number: int) -> bool:
    """Whether it could be; also when the process has ended."""
    if pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return True
    except (OSError, AttributeError):
        return False
    return True


def _reap(what: int, number: int) -> int | None:
    """The exit code of a child that has ended, if nobody else has reaped it."""
    try:
        result = os.waitid(what, number, os.WEXITED | os.WNOHANG)
    except OSError:  # ChildProcessError; before Linux 5.4 a pidfd can't be waited for
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _is_awaited(child: int) -> bool:
    """Whether its end, which others may wait for, is still to come."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _exit_code_from_pidfd(pidfd: int) -> int | None:
    """Of a process that somebody else has reaped, or is about to."""
    deadline = time.monotonic() + _REAPING_S
    request = bytearray(_INFO.size)
    while pidfd >= 0:
        request[:] = _INFO.pack(_INFO_EXIT, *[0] * 13)
        try:
            fcntl.ioctl(pidfd, _GET_INFO, request)
        except OSError:
            return None  # an older kernel
        mask, *_, status = _INFO.unpack(request)
        if mask & _INFO_EXIT:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return None


def _has_ended(line: int) -> bool:
    return _poll(line, 0.0)


def _poll(fd: int, timeout_s: float | None) -> bool:
    """Whether it is readable, or its other end is closed."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLRDHUP)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
