"""Resources: descriptors, threads and memory, and where shared memory and sockets are made."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from mpspmd._ring import MAX_READERS
from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok
from mpspmd.errors import SegmentError
from mpspmd.machine.advice import advice as advice_for
from mpspmd.machine.room import (
    descriptors_for,
    spare_threads,
    thread_advice,
    thread_limits,
    threads_for,
)
from mpspmd.processes.run_dir import RunDir, parents
from mpspmd.transport.channel import ChannelSegments
from mpspmd.transport.segment import SHM, both_failed, check_memfd, check_memory, check_shm

_MIB = 1 << 20


def descriptors(plan: Plan) -> Iterator[Finding]:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Also a segment for each ring, the status page, the recorder, and what this process has open already.
    needed = descriptors_for(plan.ranks) + plan.ranks + 3 + len(os.listdir("/proc/self/fd"))
    found = f"limit {limit}, about {needed} needed"
    if limit < needed:
        advice = f"ulimit -n {max(4096, needed)}"
        if most < needed:
            advice += f" (the hard limit is {most}: ask whoever runs this machine)"
        yield fails("file descriptors", found, advice)
    else:
        yield ok("file descriptors", found)


def threads(plan: Plan) -> Iterator[Finding]:
    """Starts threads to find out, as a run does."""
    needed = threads_for(plan.ranks)
    spare = spare_threads(needed)
    subject = "threads and processes"
    if spare < needed:
        found = f"{spare} can be had, {needed} are needed: {thread_limits()}"
        yield fails(subject, found, thread_advice())
    else:
        yield ok(subject, f"{needed} are needed, and can be had")


def locked_memory(plan: Plan) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        yield ok("locked memory", "unlimited")
    else:
        found = f"{limit / _MIB:.0f} MiB"
        advice = "mpspmd locks no memory; NCCL over InfiniBand may want ulimit -l unlimited"
        yield (note if limit < 64 * _MIB else ok)("locked memory", found, advice)


def shared_memory(plan: Plan) -> Iterator[Finding]:
    """Makes the same checks as a run, in the same order."""
    needed = ChannelSegments.bytes_for(min(plan.ranks, MAX_READERS), plan.config)
    found = f"{needed / _MIB:.1f} MiB needed"
    try:
        check_memory(needed)
    except SegmentError as error:
        yield fails("memory", found, str(error))
    else:
        yield ok("memory", found)
    try:
        check_shm(needed)
    except OSError as error:
        yield _without_shm(error)
    else:
        system = os.statvfs(SHM)
        free = system.f_bavail * system.f_frsize
        yield ok(SHM, f"{free / _MIB:.0f} MiB free, {found}")


def _without_shm(in_shm: OSError) -> Finding:
    found = in_shm.strerror or str(in_shm)
    try:
        check_memfd()
    except OSError as error:
        return fails(SHM, found, both_failed(in_shm, error))
    return note(
        SHM,
        found,
        "a run makes its shared memory with memfd_create instead; multiprocessing's locks and vLLM need "
        f"{SHM} all the same: {advice_for(in_shm.errno)} (docker run --shm-size=1g)",
    )


def sockets(plan: Plan) -> Iterator[Finding]:
    """Makes a run's folder as a run does."""
    try:
        run_dir = RunDir(plan.config.runtime_dir, lambda path: None)
    except SegmentError as error:
        yield fails("folder for sockets", str(error), "set MPSPMD_RUNTIME_DIR")
        return
    run_dir.remove()
    if run_dir.passed_over:
        first = parents(plan.config.runtime_dir)[0]
        advice = f"make {first} writable, or choose a folder with MPSPMD_RUNTIME_DIR"
        found = f"{run_dir.path.parent} ({run_dir.passed_over})"
        yield note("folder for sockets", found, advice)
    else:
        yield ok("folder for sockets", str(run_dir.path.parent))
