"""Progress: how far each rank is with a call, from shared memory alone.

No rank is asked: a rank that hangs couldn't answer while it holds its interpreter's lock.
"""

from __future__ import annotations

import time

from mpspmd.engine.call import NO_REPLY, Call
from mpspmd.report import Progress
from mpspmd.transport.channel import EngineChannel
from mpspmd.wire import ALL


def progress_of(call: Call, channel: EngineChannel) -> list[Progress]:
    """In rank order. Any thread."""
    now, tail = time.monotonic(), channel.request_ring.tail
    progress = []
    for rank, head in enumerate(channel.request_ring.heads):
        line = channel.status.line(rank).snapshot()
        phase = line["phase"]
        beyond, here = line["step"] > call.step, line["step"] == call.step
        finished = beyond or (here and phase in ("replying", "waiting"))
        # Nobody may have read its reply yet: a future's replies are read when somebody asks for them.
        ring = channel.reply_rings[rank]
        has_reply = call.replies[rank] is not NO_REPLY or (finished and ring.tail > min(ring.heads))
        awaited = call.ranks in (ALL, rank)
        progress.append(
            Progress(
                rank=rank,
                pid=line["pid"],
                phase=phase,
                method=line["method"],
                step=line["step"],
                seconds=max(0.0, now - line["since"]),
                read=beyond or here,
                started=beyond or (here and phase != "decoding"),
                finished=finished,
                awaited=awaited,
                replied=awaited and has_reply,
                unread_bytes=max(0, tail - head),
                node=line["node"],
            )
        )
    return progress
