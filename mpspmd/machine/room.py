"""Room: whether there are enough descriptors, threads and processes for a run, tried before it starts.

Without them libzmq aborts the process, and other libraries raise errors that don't say why.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import resource
import threading
import time

from mpspmd.errors import SegmentError
from mpspmd.machine.advice import advice
from mpspmd.machine.cgroup import pids_limit

_DESCRIPTORS = 24
_DESCRIPTORS_A_RANK = 9
"""Upper limits of what an engine opens beside its segments: sockets, pipes, and some while ranks start."""
_THREADS = 10
"""An engine's own threads, with libzmq's two, and the processes beside its ranks."""
_THREADS_A_RANK = 6
"""The rank's main thread is one of them."""
_THREADS_OF_LAUNCHER = 8
"""The threads of torch's agent and its store, and the janitor."""
_THREADS_GONE_S = 5.0
"""How long the threads of the trial may take to end."""


def descriptors_for(world_size: int) -> int:
    """How many descriptors an engine opens beside its segments."""
    return _DESCRIPTORS + _DESCRIPTORS_A_RANK * world_size


def threads_for(world_size: int) -> int:
    """How many threads and processes an engine and its ranks start, without those of the worker: numpy and
    torch start one thread for each core."""
    return _THREADS + _THREADS_A_RANK * world_size


def check_room(world_size: int) -> None:
    """Raises SegmentError if the limits don't allow an engine with so many ranks."""
    who = f"an engine with {world_size} rank(s)"
    _check_descriptors(who, descriptors_for(world_size))
    _check_threads(who, threads_for(world_size))


def check_room_of_launcher(n_ranks: int, *, has_engine: bool) -> None:
    """Raises SegmentError if the limits don't allow what mpspmd-launch and its processes start."""
    who = f"a launcher of {n_ranks} rank(s)"
    _check_descriptors(who, descriptors_for(n_ranks))
    theirs = 1 + threads_for(n_ranks) if has_engine else n_ranks
    _check_threads(who, _THREADS_OF_LAUNCHER + theirs)


def check_room_on_rank(rank: int) -> None:
    """Raises SegmentError if the limits don't allow the threads of a rank's process."""
    _check_threads(f"rank {rank}", _THREADS_A_RANK - 1)


def _check_descriptors(who: str, count: int) -> None:
    spare: list[int] = []
    try:
        spare += os.pipe2(os.O_CLOEXEC)
        for _ in range(count - len(spare)):
            spare.append(fcntl.fcntl(spare[0], fcntl.F_DUPFD_CLOEXEC, 0))
    except OSError as error:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise SegmentError(
            f"{who} needs {count} more file descriptors, and the limit is {limit}: "
            f"{advice(error.errno)}"
        ) from error
    finally:
        for fd in spare:
            os.close(fd)


def _check_threads(who: str, count: int) -> None:
    started = spare_threads(count)
    if started < count:
        raise SegmentError(
            f"{who} needs {count} more threads and processes, and only {started} can be had: "
            f"{thread_limits()}; {thread_advice()}. Libraries such as numpy and torch take some of "
            "them: OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 spare those"
        )


def thread_limits() -> str:
    """The known limits of processes and threads, in words."""
    limits = []
    if (pids := pids_limit()) is not None:
        limits.append(f"the control group allows {pids} in all (pids.max)")
    user, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if user != resource.RLIM_INFINITY:
        limits.append(f"this user may have {user} (ulimit -u)")
    limits += [f"{what} may have {size} bytes ({option})" for what, size, option in _sizes()]
    return ", ".join(limits) or "no limit is known that says so"


def thread_advice() -> str:
    """What to do if no more threads and processes can be started. Each thread needs memory, too."""
    options = [f"{option} unlimited" for _, _, option in _sizes()]
    more = f", or of this process's memory ({', '.join(options)})" if options else ""
    return advice(errno.EAGAIN) + more


def _sizes() -> list[tuple[str, int, str]]:
    """The limits of this process's memory: what is limited, the bytes, and the shell command."""
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    data, _ = resource.getrlimit(resource.RLIMIT_DATA)
    sizes = [("this process's address space", address_space, "ulimit -v")]
    sizes += [("this process's data", data, "ulimit -d")]
    return [each for each in sizes if each[1] != resource.RLIM_INFINITY]


def spare_threads(count: int) -> int:
    """How many threads can be started now, at most `count`. They have ended when this returns."""
    gate = threading.Lock()
    ids: list[int] = []

    def wait() -> None:
        ids.append(threading.get_native_id())
        with gate:
            pass

    started = 0
    with gate:
        try:
            while started < count:
                _thread.start_new_thread(wait, ())
                started += 1
        except RuntimeError:
            pass
    # The kernel counts a thread against the limits as long as it shows it.
    end = time.monotonic() + _THREADS_GONE_S
    while len(ids) < started or any(os.path.exists(f"/proc/self/task/{each}") for each in ids):
        if time.monotonic() > end:
            break
        time.sleep(0.0005)
    return started
