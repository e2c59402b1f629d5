"""Mutated messages of the delta codec, with checks that are right: the parser reads what it shouldn't."""

from __future__ import annotations

import contextlib
import random
import resource
from collections.abc import Callable, Iterator
from typing import Any

from batches import Batch, Newcomer, Outcome, Rows, batch_plan, joined, outcome_plan

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyBase, ReplyCodec
from mpspmd.errors import CodecDesync

_HEAD = 17
_CHECKED = 8
_MOST_BYTES = 64 << 20
"""A corrupt length may ask for a list of gigabytes: that is a MemoryError at once, and not a slow test."""

Mutate = Callable[[bytearray, random.Random], None]


def checked(message: bytes, seed: int) -> bytes:
    """With the check that its sender would have written: `csrc/digest.c` and `py_step.c`."""
    data = message[_CHECKED:]
    value = _word(seed, 0x6D70)
    whole = len(data) - len(data) % 8
    for at in range(0, whole, 8):
        value = _word(value, int.from_bytes(data[at : at + 8], "little"))
    value = _word(_word(value, int.from_bytes(data[whole:], "little")), len(data))
    return value.to_bytes(8, "little") + data


def _word(value: int, word: int) -> int:
    value = ((value ^ word) * 0x9E3779B97F4A7C15) & (2**64 - 1)
    return value ^ (value >> 32)


def batches() -> Iterator[Batch]:
    """One of each field's ways: rows come, stay, change order, and go."""
    draw = random.Random(0)
    names = [f"request-{number}" for number in range(12)]
    for step in range(16):
        if step % 5 == 4:
            draw.shuffle(names)
        running = names[: 6 + step % 7]
        yield Batch(
            counts={name: 1 + (step + len(name)) % 3 for name in running} | {f"new-{step}": 8},
            total=len(running) + 8,
            rows=Rows(
                keys=running,
                progress=[step + 3 * place for place in range(len(running))],
                trend=[step] * len(running),
                groups=[
                    ([step], [1, 2]) if place % 4 == 0 else None for place in range(len(running))
                ],
                lists=[[step, place] for place in range(3)],
                tails={running[0]: list(range(step + 1))},
                again={running[1]},
            ),
            drafts={running[-1]: [-1, -1, step]},
            finished={f"new-{step - 2}", "unknown"},
            paused={running[2]},
            newcomers=[Newcomer(f"new-{step}", [1, 2, 3000], ([step],))],
            flag=step % 2 == 0,
        )


class Deltas:
    """A request's decoder, or a reply's, in a state that it may well be in."""

    def __init__(self, mutate: Mutate) -> None:
        self._mutate = mutate
        self._request_plan, self._replies = batch_plan(), ReplyCodec(outcome_plan())
        self._requests: list[bytes] = []
        self._answers: list[tuple[bytes, ReplyBase]] = []
        encoder, order = DeltaEncoder(self._request_plan), None
        for batch in batches():
            self._requests.append(joined(encoder.encode(batch, 3, b"label")))
            encoder.sent()
            keys = sorted(batch.counts)
            index = {key: place for place, key in enumerate(keys)}
            outcome = Outcome(keys, index, [[batch.counts[key], 70_000] for key in keys])
            base = encoder.reply_base(order)
            message, order = self._replies.encode(outcome, base)
            self._answers.append((joined(message), base))

    def once(self, numbers: random.Random) -> bool:
        """Whether the message was refused. CodecDesync and MemoryError are all that may come."""
        with _little_memory():
            return (self._request if numbers.random() < 0.7 else self._reply)(numbers)

    def _request(self, numbers: random.Random) -> bool:
        decoder = DeltaDecoder(self._request_plan)
        at = numbers.randrange(len(self._requests) - 1)
        for message in self._requests[:at]:
            decoder.decode(message)
        seed = 0 if at == 0 else decoder.reply_base(None)[0]
        original = self._requests[at]
        message = self._mutated(original, seed, numbers)
        refused = _refuses(lambda: decoder.decode(message))
        # Whatever it was taken for: the ends have drifted apart, and the next message finds out.
        if message != original:
            assert _refuses(lambda: decoder.decode(self._requests[at + 1]))
        return refused

    def _reply(self, numbers: random.Random) -> bool:
        original, base = numbers.choice(self._answers)
        check, _, order = base
        message = self._mutated(original, _word(check, order[2] if order else 0), numbers)
        return _refuses(lambda: self._replies.decode(message, base))

    def _mutated(self, original: bytes, seed: int, numbers: random.Random) -> bytes:
        assert checked(original, seed) == original
        fields = bytearray(original[_HEAD:])
        self._mutate(fields, numbers)
        if numbers.random() < 0.1:
            del fields[numbers.randrange(len(fields)) :]
        head = bytearray(original[:_HEAD])
        head[8:12] = (_HEAD + len(fields)).to_bytes(4, "little")
        return checked(bytes(head + fields), seed)


def _refuses(decode: Callable[[], Any]) -> bool:
    try:
        repr(decode())
    except (CodecDesync, MemoryError):
        return True
    return False


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
