"""Mutated inputs for what parses another process's bytes: only typed errors may come of them.

`python fuzz.py TARGET TIMES [SEED]`; targets: record (the ring's records), control (messages), delta (steps
and their replies).
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from collections.abc import Callable

import msgspec
from deltas import Deltas

from mpspmd._native import Inbox, Ring, Writer
from mpspmd.control import messages
from mpspmd.errors import ChannelError
from mpspmd.transport.segment import Segment

_CAPACITY = 1 << 16
_CONTROL_BYTES = 4096  # before the data
_INTERESTING = (0, 1, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytearray, numbers: random.Random) -> None:
    """In place: bits, bytes, and words that parsers trip over."""
    for _ in range(numbers.randint(1, 4)):
        at = numbers.randrange(len(data))
        match numbers.randrange(4):
            case 0:
                data[at] ^= 1 << numbers.randrange(8)
            case 1:
                data[at] = numbers.randrange(256)
            case 2:
                word = numbers.choice(_INTERESTING).to_bytes(4, "little")
                at -= at % 4
                data[at : at + 4] = word[: len(data) - at]
            case 3:
                end = min(len(data), at + numbers.randint(1, 16))
                data[at:end] = numbers.randbytes(end - at)


class Records:
    """A ring whose bytes somebody else has written over, and its reader."""

    def __init__(self) -> None:
        self._segment = Segment.create(Ring.segment_bytes(_CAPACITY, 1))
        self._memory = mmap.mmap(self._segment.fd, self._segment.size)
        self._payloads = [b"x" * size for size in (0, 1, 17, 300, 5000, 40000)]

    def close(self) -> None:
        self._memory.close()
        self._segment.close()

    def once(self, numbers: random.Random) -> bool:
        """Whether the reader has noticed."""
        self._memory[:_CONTROL_BYTES] = bytes(_CONTROL_BYTES)
        Ring.format(self._segment.fd, _CAPACITY, 1)
        ring = Ring(self._segment.fd)
        writer, inbox = Writer(ring), Inbox((ring,), 0)
        for tag, payload in enumerate(numbers.choices(self._payloads, k=3)):
            if not writer.try_send(numbers.randrange(4), tag, payload):
                break  # full; the fragments that are there belong to a message without an end
        # Mostly the first record's header, else anything before the tail.
        span = 16 if numbers.random() < 0.7 else max(16, ring.tail)
        start = _CONTROL_BYTES
        data = bytearray(self._memory[start : start + span])
        mutate(data, numbers)
        self._memory[start : start + span] = bytes(data)
        return _read_all(inbox)


def _read_all(inbox: Inbox) -> bool:
    try:
        while (message := inbox.try_recv()) is not None:
            payload = message[3]
            len(bytes(payload))
            if isinstance(payload, memoryview):
                payload.release()
                inbox.release()
    except (ChannelError, MemoryError):
        # A first fragment may promise any length: there may not be the memory.
        return True
    return False


_SEEDS = [
    messages.encode(message)
    for message in (
        messages.Hello(1, 1234),
        messages.Ready(0, 1.5),
        messages.Fault(1, "execute_model", 7, "ValueError", "no luck", "Traceback …"),
        messages.Pong(1, 5),
        messages.Stacks(0, 2, "MainThread:\n"),
        messages.Leaving(1, "exit code 3"),
        messages.Goodbye(2),
        messages.Ping(1),
        messages.Dump(3),
        messages.Shutdown(),
    )
]


def control_once(numbers: random.Random) -> bool:
    data = bytearray(numbers.choice(_SEEDS))
    mutate(data, numbers)
    if numbers.random() < 0.2:
        del data[numbers.randrange(len(data)) :]
    refused = 0
    for decode in (messages.decode_to_engine, messages.decode_to_rank):
        try:
            decode(bytes(data))
        except msgspec.DecodeError:
            refused += 1
    return refused == 2


def run(target: str, times: int, seed: int) -> int:
    """How many of the inputs were refused. Any other exception is a bug, and names the seed."""
    numbers = random.Random(seed)
    records = Records()
    targets: dict[str, Callable[[random.Random], bool]] = {
        "record": records.once,
        "control": control_once,
        "delta": Deltas(mutate).once,
    }
    once = targets[target]
    refused = 0
    try:
        for number in range(times):
            try:
                refused += once(numbers)
            except BaseException:
                print(f"{target}: input {number} of seed {seed}", file=sys.stderr)
                raise
    finally:
        records.close()
    return refused


if __name__ == "__main__":
    target, times = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int.from_bytes(os.urandom(4), "big")
    refused = run(target, times, seed)
    print(f"OK {target}: {times} inputs, {refused} refused, seed {seed}")
