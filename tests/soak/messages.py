"""python messages.py MESSAGES OUT: so many small messages to two ranks, with pauses at random.

Each rank checks every one of them. OUT gets every process's footprint, many times, as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import random
import struct
import sys
import time
from multiprocessing import get_context
from pathlib import Path

from footprint import Footprint, footprint

from mpspmd import RuntimeConfig
from mpspmd.transport.channel import ChannelSegments, EngineChannel, RankChannel
from mpspmd.wire import KIND_REPLY, KIND_REQUEST

RANKS = 2
BATCH = 100_000
_MESSAGE = struct.Struct("<QQ")


def serve(rank: int, segments: ChannelSegments, messages: int) -> None:
    channel = RankChannel(segments, rank)
    segments.close()
    pauses = random.Random(rank)
    inbox, read = channel.requests, _MESSAGE.unpack
    for batch in range(messages // BATCH):
        pause_at = pauses.randrange(2 * BATCH)
        for number in range(batch * BATCH, (batch + 1) * BATCH):
            message = inbox.recv()
            assert message is not None
            assert read(message[3]) == (number, number ^ 0x5DEECE66D)
            if number % BATCH == pause_at:
                time.sleep(pauses.random() / 100)
        footprint_now = json.dumps(dataclasses.astuple(footprint())).encode()
        channel.replies.send(KIND_REPLY, batch, footprint_now)


def send(segments: ChannelSegments, messages: int) -> list[list[Footprint]]:
    """Each process's footprints, the sender's last."""
    channel = EngineChannel(segments)
    pauses = random.Random(7)
    writer, write = channel.requests, _MESSAGE.pack
    seen: list[list[Footprint]] = [[] for _ in range(RANKS + 1)]
    for batch in range(messages // BATCH):
        for number in range(batch * BATCH, (batch + 1) * BATCH):
            writer.send(KIND_REQUEST, number & 0xFFFF, write(number, number ^ 0x5DEECE66D))
        for _ in range(RANKS):
            message = channel.replies.recv()
            assert message is not None
            seen[message[0]].append(Footprint(*json.loads(bytes(message[3]))))
        seen[RANKS].append(footprint())
        if pauses.random() < 0.3:
            time.sleep(pauses.random() / 20)
    return seen


def main() -> None:
    messages, out = int(sys.argv[1]), Path(sys.argv[2])
    segments = ChannelSegments.create(RANKS, RuntimeConfig.from_env())
    context = get_context("spawn")
    ranks = [
        context.Process(target=serve, args=(rank, segments, messages)) for rank in range(RANKS)
    ]
    for each in ranks:
        each.start()
    seen = send(segments, messages)
    for each in ranks:
        each.join()
    assert [each.exitcode for each in ranks] == [0] * RANKS
    segments.close()
    out.write_text(json.dumps([[dataclasses.astuple(one) for one in each] for each in seen]))


if __name__ == "__main__":
    main()
