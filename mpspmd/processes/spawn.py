"""Starting and ending the ranks' processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import resource_tracker

from mpspmd.errors import SegmentError
from mpspmd.machine.advice import with_advice
from mpspmd.processes.child import start_child
from mpspmd.processes.hash_seed import one_seed
from mpspmd.processes.main_module import RANK_NAME, main_to_import
from mpspmd.processes.process import Process
from mpspmd.processes.signals import signals_deferred
from mpspmd.processes.start import RankStart, not_picklable

_TERM_GRACE_S = 1.0
"""How long a rank may take after SIGTERM before it gets SIGKILL."""

_KILL_GRACE_S = 10.0
"""How long the kernel may take to end a process that has got SIGKILL."""

AroundStart = Callable[[int], AbstractContextManager[object]]
StartRanks = Callable[[Sequence[RankStart], AroundStart, list[Process]], None]


@contextlib.contextmanager
def existing_working_directory() -> Iterator[None]:
    """In the body the working directory is / if it has been deleted.

    multiprocessing tells the working directory to each process that it spawns, and fails if it is deleted.
    """
    try:
        os.getcwd()
    except OSError:
        deleted = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        yield
        return
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(deleted)
        os.close(deleted)


def start_ranks(
    ranks: Sequence[RankStart], around_start: AroundStart, started: list[Process]
) -> None:
    """Spawns a process for each rank, and appends each to `started`.

    `around_start(rank)` surrounds the start of that rank: what it sets in the environment, the rank
    inherits. WorkerNotPicklable, SegmentError; what has been started by then stays in `started`.
    """
    # Ranks are spawned, never forked: a fork would copy threads' locks and CUDA's state.
    # Before the first child is started. That would start the tracker with signals blocked, for good.
    resource_tracker.ensure_running()
    main = main_to_import(ranks[0].worker) if ranks[0].pickled is None else {}
    with one_seed(ranks[0].hash_seed) as hash_seed:
        for rank in ranks:
            rank.main, rank.hash_seed = main, hash_seed
            with around_start(rank.rank), signals_deferred():
                _start(rank, started)


def _start(rank: RankStart, started: list[Process]) -> None:
    try:
        process = start_child(rank, f"{RANK_NAME}{rank.rank}", rank.signals_of_engine)
        # A signal that comes now is handled later, when the process is in the list.
        started.append(process)
        rank.death_pipe.arm(process)
    except Exception as error:
        if isinstance(error, OSError):
            raise SegmentError(
                f"rank {rank.rank} can't be started: {with_advice(error)}"
            ) from error
        # What pickling raises is up to the objects.
        raise not_picklable(rank.worker, error) from error


def stop_ranks(
    processes: Sequence[Process], patience_s: float, has_begun: Callable[[int], bool]
) -> list[Process]:
    """Waits until the processes have ended. After `patience_s` sends SIGTERM, a second later SIGKILL.

    Returns those that got SIGKILL then. Stopped processes (SIGSTOP) are continued, because otherwise
    they couldn't end. A rank for which `has_begun` is false still imports: it has no worker to shut down
    and handles no SIGTERM, so it gets SIGKILL at once after `patience_s`.
    """
    for process in processes:
        process.send_signal(signal.SIGCONT)
    _join_all(processes, patience_s)
    for rank, process in enumerate(processes):
        process.send_signal(signal.SIGTERM)
        if not has_begun(rank):
            process.send_signal(signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
    _join_all(processes, _TERM_GRACE_S)
    killed = [process for process in processes if process.is_alive()]
    for process in killed:
        process.send_signal(signal.SIGKILL)
    _join_all(killed, _KILL_GRACE_S)
    return killed


def _join_all(processes: Sequence[Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
