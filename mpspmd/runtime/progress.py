"""Progress: how far each rank is with a call, from shared memory alone.

The status page and the rings tell it without anybody's help: a rank may hold its interpreter's lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mpspmd.request import ALL
from mpspmd.runtime.call import NO_REPLY, Call
from mpspmd.transport.channel import EngineChannel


@dataclass(frozen=True)
class Progress:
    """One rank, and one call."""

    rank: int
    pid: int
    phase: str
    """loading, waiting, decoding, running or replying; perhaps in another step than the call's."""
    method: str
    step: int
    seconds: float
    """How long it has been in this phase."""
    read: bool
    started: bool
    finished: bool
    replied: bool
    awaited: bool
    """Whether the call waits for its reply."""
    unread_bytes: int
    """What of the request ring it has not read yet."""

    @property
    def done(self) -> bool:
        return self.replied if self.awaited else self.finished

    @property
    def place(self) -> str:
        """Where the rank is, in words."""
        where = f"{self.method} (step {self.step})"
        if self.phase == "waiting":
            where = f"for a request, after {where}" if self.step else "for its first request"
        elif self.phase == "loading":
            where = "its worker"
        return f"{self.phase} {where} for {self.seconds:.1f} s"


def progress_of(call: Call, channel: EngineChannel) -> list[Progress]:
    """In rank order. Any thread."""
    tail = channel.request_ring.tail
    heads = channel.request_ring.heads
    return [_of_rank(call, rank, channel, tail - head) for rank, head in enumerate(heads)]


def _of_rank(call: Call, rank: int, channel: EngineChannel, unread: int) -> Progress:
    line = channel.status.line(rank).snapshot()
    beyond, here = line["step"] > call.step, line["step"] == call.step
    phase = line["phase"]
    return Progress(
        rank=rank,
        pid=line["pid"],
        phase=phase,
        method=line["method"],
        step=line["step"],
        seconds=max(0.0, time.monotonic() - line["since"]),
        read=beyond or here,
        started=beyond or (here and phase != "decoding"),
        finished=beyond or (here and phase in ("replying", "waiting")),
        awaited=call.ranks in (ALL, rank),
        replied=call.ranks in (ALL, rank) and call.replies[rank] is not NO_REPLY,
        unread_bytes=max(0, unread),
    )
