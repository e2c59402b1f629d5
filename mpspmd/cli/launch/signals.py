"""Signals to the launcher: which processes of the group get them, and in what order."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import psutil
from torch.distributed.elastic.multiprocessing import SignalException

from mpspmd.cli.command import tell
from mpspmd.errors import ConfigError
from mpspmd.processes.launch import Launch
from mpspmd.processes.proc import caught_signals
from mpspmd.processes.process import is_running
from mpspmd.threads import start_thread

_FOR_THE_PROGRAM = (signal.SIGUSR1, signal.SIGUSR2)
"""The program decides what they mean. Slurm can send one before a job's time is over."""

_CONTINUING_S = 1.0
"""How long we wait for a stopped process to continue."""
_TAKES_S = 1.0
"""How long a signal may take to reach Python. While nodes meet, torch waits in C++, for minutes."""
_NOT_READY = (psutil.STATUS_STOPPED, psutil.STATUS_RUNNING)
"""A continued process is ready for a signal when it sleeps again, or has run for `_CONTINUING_S`."""


class Stopped(SignalException):
    """A signal came: `number`. The agent sends its `sigval` to the processes that still run."""

    def __init__(self, number: int, pass_on: signal.Signals) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}", pass_on)
        self.number = number


def signals_named(names: str) -> list[signal.Signals]:
    """The signals of --signals-to-handle. A name that can't be handled here is reported, and left out."""
    signals = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        number = getattr(signal, name, None)
        if isinstance(number, signal.Signals) and number not in (signal.SIGKILL, signal.SIGSTOP):
            signals.append(number)
        else:
            tell(f"mpspmd-launch: no process can handle a signal {name!r}")
    return signals


@contextlib.contextmanager
def stopping_at_signals(
    signals: Iterable[signal.Signals], has_engine: bool, patience_s: float | None = None
) -> Iterator[None]:
    """Within the block, a signal ends the group and raises Stopped. Main thread.

    The first signal waits for the engine, at most `patience_s`; a second one doesn't wait. A signal that
    this process ignores stays ignored, as nohup and a shell's background jobs want it. SIGUSR1 and SIGUSR2,
    unless they are in `signals`, are passed on, and the group goes on.
    """
    processes = _Processes(has_engine)
    handled = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    passed_on = [
        number
        for number in _FOR_THE_PROGRAM
        if number not in handled and signal.getsignal(number) != signal.SIG_IGN
    ]
    stopped: Stopped | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        for each in handled:
            signal.signal(each, insist)
        stopped = Stopped(number, signal.SIGTERM if has_engine else signal.Signals(number))
        if has_engine:
            processes.let_the_engine_stop(number, patience_s)
        else:
            processes.continue_all()
        raise stopped

    def insist(number: int, frame: object) -> None:
        processes.continue_all()
        raise Stopped(number, signal.SIGTERM)

    def pass_on(number: int, frame: object) -> None:
        processes.pass_on(number)

    before = {number: signal.signal(number, stop) for number in handled}
    before |= {number: signal.signal(number, pass_on) for number in passed_on}
    try:
        with _ending_without_python(handled, lambda: stopped is not None, processes):
            yield
    except Exception as error:
        # A `finally` of torch's may have replaced Stopped by another exception, because it uses a variable
        # that the interrupted line had not assigned yet.
        if stopped is None or isinstance(error, Stopped):
            raise
        raise stopped from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ending_without_python(
    signals: Collection[signal.Signals], was_taken: Callable[[], bool], processes: _Processes
) -> Iterator[None]:
    """Within the block, a signal also ends this process while its main thread is in C++ code, which keeps
    Python's handler from running, and there is no process of the group. The janitor does the rest."""

    def end_if_not_taken() -> None:
        with open(numbers, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] in signals:
                    time.sleep(_TAKES_S)
                    if not was_taken() and not processes.are_there:
                        os._exit(128 + number[0])

    numbers, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    start_thread(end_if_not_taken, name="mpspmd-signals")
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)


class _Processes:
    """The processes that the agent starts after this object was made.

    Main thread, unless it says otherwise. The agent runs in it too and reaps its processes only there, so a
    process that is found here keeps its number meanwhile.
    """

    def __init__(self, has_engine: bool) -> None:
        self._has_engine = has_engine
        self._strangers = set(_children())

    @property
    def are_there(self) -> bool:
        """Any thread."""
        return bool(self._members())

    def let_the_engine_stop(self, number: int, patience_s: float | None) -> None:
        """Passes the signal to the engine, which shuts its ranks down, and waits until all have ended.

        Ranks without a handler for SIGTERM haven't connected to the engine yet; this ends them.
        """
        self.continue_all()
        members = self._members()
        for process in members:
            if not _is_rank(process):
                _send(process, number)
            elif signal.SIGTERM not in (caught_signals(process.pid) or ()):
                _send(process, signal.SIGTERM)
        deadline = math.inf if patience_s is None else time.monotonic() + patience_s
        while any(is_running(process.pid) for process in members) and time.monotonic() < deadline:
            time.sleep(0.01)

    def continue_all(self) -> None:
        """Continues the processes that SIGSTOP or Ctrl-Z has stopped, which can't act on a signal.

        Returns when they run. Any thread of a process may take a signal that comes before, and then Python
        acts on it only when its main thread wakes up by itself.
        """
        members = self._members()
        stopped = [each for each in members if _state(each) == psutil.STATUS_STOPPED]
        for process in members:  # all of them, because others may be about to stop
            _send(process, signal.SIGCONT)
        deadline = time.monotonic() + _CONTINUING_S
        while any(_state(each) in _NOT_READY for each in stopped) and time.monotonic() < deadline:
            time.sleep(0.001)

    def pass_on(self, number: int) -> None:
        """Sends it to the engine, or to all ranks if there is no engine."""
        for process in self._members():
            if not (self._has_engine and _is_rank(process)):
                _send(process, number)

    def _members(self) -> list[psutil.Process]:
        """This process may have other children: as process 1 of a container it adopts all orphans."""
        members = [child for child in _children() if child not in self._strangers]
        if self._has_engine:
            return [child for child in members if _launch_of(child) is not None]
        return [child for child in members if _leads_a_session(child.pid)]


def _children() -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error, OSError):  # without /proc
        return psutil.Process().children()
    return []


def _state(process: psutil.Process) -> str | None:
    """The state of its main thread; None when the process has ended."""
    with contextlib.suppress(psutil.Error):
        return str(process.status())
    return None


def _launch_of(process: psutil.Process) -> Launch | None:
    with contextlib.suppress(psutil.Error, ConfigError):
        return Launch.take(process.environ())
    return None


def _is_rank(process: psutil.Process) -> bool:
    launch = _launch_of(process)
    return launch is not None and launch.is_rank


def _leads_a_session(pid: int) -> bool:
    """Each process that the agent starts does."""
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
