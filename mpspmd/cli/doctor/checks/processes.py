"""Processes: what one may know of others, and which signals reach it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok
from mpspmd.config import RuntimeConfig
from mpspmd.errors import SegmentError
from mpspmd.transport.channel import ChannelSegments, EngineChannel


def pidfds(plan: Plan) -> Iterator[Finding]:
    try:
        pidfd = os.pidfd_open(os.getpid())
    except (OSError, AttributeError) as error:
        advice = (
            "processes are told apart by the times of their start instead; a Docker from 20.10.6 on, with "
            "libseccomp from 2.4.4 on, allows it"
        )
        yield note("pidfd", f"pidfd_open is refused ({error})", advice)
        return
    try:
        signal.pidfd_send_signal(pidfd, 0)
        yield ok("pidfd", "can be opened and signalled")
    except (OSError, AttributeError) as error:
        advice = "the time of a process's start is compared before it is signalled by its number"
        yield note("pidfd", f"pidfd_send_signal is refused ({error})", advice)
    finally:
        os.close(pidfd)


def deaths(plan: Plan) -> Iterator[Finding]:
    """Whether there are robust futexes and eventfds, which each engine needs."""
    config = RuntimeConfig(request_ring_bytes=1 << 16, reply_ring_bytes=1 << 16)
    try:
        segments = ChannelSegments.create(1, config)
    except SegmentError:
        return  # another check reports that
    try:
        EngineChannel(segments).release()
        yield ok("robust futexes", "they report the death of a process")
    except SegmentError as error:
        found, _, advice = str(error).partition("; ")
        yield fails("robust futexes", found, advice)
    finally:
        segments.close()


def signals(plan: Plan) -> Iterator[Finding]:
    first = _name_of_process_1()
    if first is not None and (os.getpid() == 1 or first.startswith("python")):
        yield note(
            "process 1",
            f"it is {first}, and no init",
            "it gets no signal that it has no handler for (mpspmd.run and mpspmd-launch have one for "
            "SIGTERM, mpspmd.Engine has none), and doesn't reap orphans: docker run --init",
        )
    else:
        yield ok("process 1", first or "can't be seen")
    if whole := _what_signals_all():
        yield ok("SIGTERM", f"{whole} sends it to all processes; ranks leave it to their engine")


def _name_of_process_1() -> str | None:
    with contextlib.suppress(OSError):
        if os.getpid() == 1:
            return Path(sys.executable).name
        return Path("/proc/1/comm").read_text().strip()
    return None


def _what_signals_all() -> str | None:
    if "SLURM_JOB_ID" in os.environ:
        return "Slurm"
    if "INVOCATION_ID" in os.environ:
        return "systemd (KillMode=control-group)"
    with contextlib.suppress(OSError):
        words = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
        if Path(words[0]).name.startswith("tini") and "-g" in words:
            return "tini -g"
    return None
