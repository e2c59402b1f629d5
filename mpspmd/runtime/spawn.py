"""Starting and ending the ranks' processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess

from mpspmd.advice import with_advice
from mpspmd.errors import SegmentError, WorkerNotPicklable
from mpspmd.runtime.hash_seed import one_seed
from mpspmd.runtime.main_module import RANK_NAME, left_to_the_rank, main_to_import
from mpspmd.runtime.rank import RankProcess
from mpspmd.runtime.signals import signals_deferred

_TERM_GRACE_S = 1.0
"""How long a rank may take after SIGTERM before it gets SIGKILL."""


PENDING = "exit status pending: the kernel still frees its memory"
"""The reason of a death whose exit status can't be had yet."""


AroundStart = Callable[[int], AbstractContextManager[object]]
StartRanks = Callable[[Sequence[RankProcess], AroundStart, list[BaseProcess]], None]


def start_ranks(
    ranks: Sequence[RankProcess],
    around_start: AroundStart,
    started: list[BaseProcess],
) -> None:
    """Spawns a process for each rank, and appends each to `started`.

    `around_start(rank)` surrounds the start of that rank: what it sets in the environment, the rank
    inherits. WorkerNotPicklable, SegmentError; what has been started by then stays in `started`.
    """
    # Ranks are spawned, never forked: a fork would copy threads' locks and CUDA's state. This is what
    # torch.multiprocessing gives, too: torch, where it is imported, has taught it to send tensors.
    context = multiprocessing.get_context("spawn")
    # Not by the first process.start(), from which it would inherit that SIGINT is blocked, for good.
    resource_tracker.ensure_running()
    main = main_to_import()
    with one_seed() as hash_seed:
        for rank in ranks:
            rank.main, rank.hash_seed = main, hash_seed
            process = context.Process(target=rank, name=f"{RANK_NAME}{rank.rank}")
            with around_start(rank.rank), signals_deferred():
                _start(rank, process, started)


def _start(rank: RankProcess, process: BaseProcess, started: list[BaseProcess]) -> None:
    try:
        with left_to_the_rank():
            process.start()
        # Within: a signal that comes now is taken only when the process is known.
        started.append(process)
        if process.pid is not None:
            rank.leash.tie(process.pid)
    except Exception as error:
        if isinstance(error, OSError):
            raise SegmentError(
                f"rank {rank.rank} can't be started: {with_advice(error)}"
            ) from error
        # What pickling raises is up to the objects.
        name = getattr(rank.worker, "__qualname__", repr(rank.worker))
        raise WorkerNotPicklable(
            f"the worker {name} or its arguments can't be sent to a new process: {error}; "
            "define the class at the top level of a module, and pass data as arguments"
        ) from error


def stop_ranks(processes: Sequence[BaseProcess], patience_s: float) -> list[int]:
    """Waits until the processes are gone, then insists. Returns the pids that had to be killed."""
    _join_all(processes, patience_s)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in processes if process.is_alive()]
        if not alive:
            return []
        for process in alive:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, sent)
        _join_all(alive, _TERM_GRACE_S if sent == signal.SIGTERM else 10.0)
    return [process.pid for process in alive if process.pid]


def _join_all(processes: Sequence[BaseProcess], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while waiting := [process for process in processes if process.is_alive()]:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        # In slices: a process that a rank has forked may keep its sentinel open.
        connection.wait([process.sentinel for process in waiting], min(left, 0.1))


def exit_reason(process: BaseProcess) -> str:
    """Why a process that is gone has ended, in words."""
    code = process.exitcode
    if code is None:
        code = _early_exit_code(process.pid)
    if code is None:
        return PENDING
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _early_exit_code(pid: int | None) -> int | None:
    """Of a process that is ending: the kernel shows it long before it can be waited for, which is
    when its memory has been freed. None where it doesn't, or when the code is 0."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            status = int(stat.read().rsplit(None, 1)[-1])
    except (OSError, ValueError, IndexError):
        return None
    return os.waitstatus_to_exitcode(status) if status else None
