"""Where shared memory and sockets are made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mpspmd._native import MAX_READERS
from mpspmd.cgroup import memory_left
from mpspmd.cli.checks.finding import Finding, Level, Plan
from mpspmd.control.plane import control_address
from mpspmd.errors import SegmentError
from mpspmd.transport.channel import ChannelSegments

_MIB = 1 << 20


def shared_memory(plan: Plan) -> Iterator[Finding]:
    needed = ChannelSegments.bytes_for(min(plan.ranks, MAX_READERS), plan.config)
    try:
        system = os.statvfs("/dev/shm")
    except OSError as error:
        yield Finding(
            Level.FAILS,
            "/dev/shm",
            error.strerror or str(error),
            "mount it: a tmpfs of 64 MiB or more",
        )
        return
    free = system.f_bavail * system.f_frsize
    found = f"{free / _MIB:.0f} MiB free, {needed / _MIB:.1f} MiB needed"
    if free < needed:
        yield Finding(
            Level.FAILS,
            "/dev/shm",
            found,
            "docker run --shm-size=1g; or smaller rings: MPSPMD_REQUEST_RING_BYTES, "
            "MPSPMD_REPLY_RING_BYTES",
        )
    else:
        yield Finding(Level.OK, "/dev/shm", found)
    left = memory_left()
    if left is not None and left < needed:
        yield Finding(
            Level.FAILS,
            "memory of the container",
            f"{left / _MIB:.0f} MiB left, {needed / _MIB:.1f} MiB needed",
            "shared memory counts as the container's: raise its limit (docker run --memory)",
        )


def sockets(plan: Plan) -> Iterator[Finding]:
    parent = plan.config.runtime_dir or tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(prefix="mpspmd-", dir=parent) as folder:
            control_address(Path(folder))
    except (OSError, SegmentError) as error:
        yield Finding(Level.FAILS, "folder for sockets", str(error), "set MPSPMD_RUNTIME_DIR")
    else:
        yield Finding(Level.OK, "folder for sockets", parent)
