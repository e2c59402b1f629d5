"""Limits of the process: descriptors, threads and locked memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok
from mpspmd.machine.room import (
    descriptors_for,
    spare_threads,
    thread_advice,
    thread_limits,
    threads_for,
)

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
