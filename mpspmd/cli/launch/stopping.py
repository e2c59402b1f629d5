"""Signals to the launcher: who gets them, in what order."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator

import psutil
from torch.distributed.elastic.multiprocessing import SignalException

from mpspmd.cli.streams import tell
from mpspmd.config import LAUNCH_VARIABLE
from mpspmd.processes.launch import Launch
from mpspmd.processes.proc import caught_signals

_FOR_THE_PROGRAM = (signal.SIGUSR1, signal.SIGUSR2)
"""What they mean is the program's to say. Slurm can send one before a job's time is over."""

_CONTINUING_S = 1.0
"""How long a process may take to go on."""
_NOT_YET = (psutil.STATUS_STOPPED, psutil.STATUS_RUNNING)
"""Until it waits again, or works for all of that time: then it will notice a signal, whoever takes it."""


class Stopped(SignalException):
    """A signal has come. The agent ends, by `sigval`, what is still there; `number` is what came."""

    def __init__(self, number: int, pass_on: signal.Signals) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}", pass_on)
        self.number = number


def signals_named(names: str) -> list[signal.Signals]:
    """Those of --signals-to-handle. Names that this system doesn't know are told, and left out."""
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
    """Main thread. Within, a signal ends the group and raises Stopped; a second one waits for nothing.

    A signal that this process ignores stays ignored: nohup, or a shell that has started it in the
    background, wants that. An engine that hasn't stopped after `patience_s` is ended. SIGUSR1 and SIGUSR2,
    unless they are among `signals`, are passed on and end nothing.
    """
    group = _Group(has_engine)
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
            group.let_the_engine_stop(number, patience_s)
        else:
            group.continue_all()
        raise stopped

    def insist(number: int, frame: object) -> None:
        group.continue_all()
        raise Stopped(number, signal.SIGTERM)

    def pass_on(number: int, frame: object) -> None:
        group.pass_on(number)

    before = {number: signal.signal(number, stop) for number in handled}
    before |= {number: signal.signal(number, pass_on) for number in passed_on}
    try:
        yield
    except Exception as error:
        # Wherever in the agent it was raised, it may have come out as another one: a `finally` of torch's
        # needs what the line that was interrupted had not assigned yet.
        if stopped is None or isinstance(error, Stopped):
            raise
        raise stopped from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Group:
    """The processes that the agent starts from now on. Main thread, which is the agent's, too: only there
    are they reaped, so a process that is found here keeps its number meanwhile.
    """

    def __init__(self, has_engine: bool) -> None:
        self._has_engine = has_engine
        self._strangers = set(_children())

    def let_the_engine_stop(self, number: int, patience_s: float | None) -> None:
        """It shuts its ranks down. Those that haven't come to it yet would be in its way."""
        self.continue_all()
        members = self._members()
        for process in members:
            if not _is_rank(process):
                _send(process, number)
            elif signal.SIGTERM not in (caught_signals(process.pid) or ()):
                _send(process, signal.SIGTERM)
        deadline = math.inf if patience_s is None else time.monotonic() + patience_s
        while any(_is_running(process.pid) for process in members) and time.monotonic() < deadline:
            time.sleep(0.01)

    def continue_all(self) -> None:
        """A process that somebody has stopped, by SIGSTOP or Ctrl-Z, can't act on a signal.

        Returns when they run, so that the signal comes afterwards. One that comes before may be taken by
        any of a process's threads, and Python acts on it only when its main thread wakes up by itself.
        """
        members = self._members()
        stopped = [each for each in members if _state(each) == psutil.STATUS_STOPPED]
        for process in members:  # others may be about to stop
            _send(process, signal.SIGCONT)
        deadline = time.monotonic() + _CONTINUING_S
        while any(_state(each) in _NOT_YET for each in stopped) and time.monotonic() < deadline:
            time.sleep(0.001)

    def pass_on(self, number: int) -> None:
        """To the engine; without one to all ranks."""
        for process in self._members():
            if not (self._has_engine and _is_rank(process)):
                _send(process, number)

    def _members(self) -> list[psutil.Process]:
        """Process 1 has other children as well: the orphans of its container."""
        members = [child for child in _children() if child not in self._strangers]
        if self._has_engine:
            return [child for child in members if _launch_of(child) is not None]
        return [child for child in members if _leads_a_session(child.pid)]


def _children() -> list[psutil.Process]:
    # There may be no /proc.
    with contextlib.suppress(psutil.Error, OSError):
        return psutil.Process().children()
    return []


def _state(process: psutil.Process) -> str | None:
    """Of its main thread; None when it is gone."""
    with contextlib.suppress(psutil.Error):
        return str(process.status())
    return None


def _launch_of(process: psutil.Process) -> Launch | None:
    with contextlib.suppress(psutil.Error):
        if text := process.environ().get(LAUNCH_VARIABLE):
            return Launch(**json.loads(text))
    return None


def _is_rank(process: psutil.Process) -> bool:
    launch = _launch_of(process)
    return launch is not None and launch.is_rank


def _leads_a_session(pid: int) -> bool:
    """As each process does that the agent starts."""
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _is_running(pid: int) -> bool:
    """A child that hasn't ended. It isn't reaped: that is the agent's."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return False
