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
from mpspmd.runtime.launch import Launch


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
    background, wants that. An engine that hasn't stopped after `patience_s` is ended.
    """
    handled = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    stopped: Stopped | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        for each in handled:
            signal.signal(each, insist)
        stopped = Stopped(number, signal.SIGTERM if has_engine else signal.Signals(number))
        if has_engine:
            _let_the_engine_stop(number, patience_s)
        raise stopped

    def insist(number: int, frame: object) -> None:
        raise Stopped(number, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in handled}
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


def _let_the_engine_stop(number: int, patience_s: float | None) -> None:
    """It shuts its ranks down. Those that haven't come to it yet would be in its way."""
    pids = []
    for pid, launch in _members():
        pids.append(pid)
        with contextlib.suppress(ProcessLookupError):
            if not launch.is_rank:
                os.kill(pid, number)
            elif not _catches(pid, signal.SIGTERM):
                os.kill(pid, signal.SIGTERM)
    deadline = math.inf if patience_s is None else time.monotonic() + patience_s
    while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def _members() -> list[tuple[int, Launch]]:
    members = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if text := child.environ().get(LAUNCH_VARIABLE):
                members.append((child.pid, Launch(**json.loads(text))))
    return members


def _catches(pid: int, number: signal.Signals) -> bool:
    """A rank in its loop has a handler for SIGTERM."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _is_running(pid: int) -> bool:
    """A child that hasn't ended. It isn't reaped: that is the agent's."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return False
