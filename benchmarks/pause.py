"""Stops the processes of transports that aren't being measured, so that they take no CPU time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

_POLL_S = 0.001


def pause(pids: Iterable[int]) -> None:
    """Stops processes with SIGSTOP, and returns when they have stopped or ended."""
    processes = list(_existing(pids))
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in processes:
        while _runs(process):
            time.sleep(_POLL_S)


def resume(pids: Iterable[int]) -> None:
    """Continues them."""
    for process in _existing(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def _existing(pids: Iterable[int]) -> Iterable[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
