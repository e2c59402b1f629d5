"""Mutated inputs for what parses another process's bytes: only typed errors may come of them.

`python fuzz.py TARGET TIMES [SEED]`; targets: record (the ring's records), control (messages), delta (steps
and their replies). `guided.py` chooses its inputs by what they reach.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Protocol

from control_messages import ControlMessages
from deltas import Deltas
from ring_records import Records

_INTERESTING = (0, 1, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Target(Protocol):
    """A parser, in a state that it may well be in."""

    def inputs(self) -> list[bytes]:
        """Some that are as they should be."""

    def refuses(self, data: bytes) -> bool:
        """Whether the parser has found out. Any exception is a bug."""

    def close(self) -> None: ...


TARGETS: dict[str, Callable[[], Target]] = {
    "record": Records,
    "control": ControlMessages,
    "delta": Deltas,
}


def mutate(data: bytearray, numbers: random.Random) -> None:
    """In place: bits, bytes, and words that parsers trip over; often where a head is; sometimes cut."""
    for _ in range(numbers.randint(1, 4)):
        at = numbers.randrange(min(len(data), 32) if numbers.random() < 0.5 else len(data))
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
    if numbers.random() < 0.1:
        del data[numbers.randrange(len(data)) :]


def run(name: str, times: int, seed: int) -> int:
    """How many of the inputs were refused. Any exception names the seed."""
    numbers = random.Random(seed)
    target = TARGETS[name]()
    inputs = target.inputs()
    refused = 0
    try:
        for number in range(times):
            data = bytearray(numbers.choice(inputs))
            mutate(data, numbers)
            try:
                refused += target.refuses(bytes(data))
            except BaseException:
                print(f"{name}: input {number} of seed {seed}", file=sys.stderr)
                raise
    finally:
        target.close()
    return refused


if __name__ == "__main__":
    name, times = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int.from_bytes(os.urandom(4), "big")
    refused = run(name, times, seed)
    print(f"OK {name}: {times} inputs, {refused} refused, seed {seed}")
