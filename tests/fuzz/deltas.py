"""Mutated messages of the delta codec, with checks that are right: the parser reads what it shouldn't."""

from __future__ import annotations

import contextlib
import random
import resource
from collections.abc import Callable, Iterator
from typing import Any

from batches import Batch, Manner, Newcomer, Outcome, Params, Rows, batch_plan, joined, outcome_plan

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyBase, ReplyCodec
from mpspmd.errors import CodecDesync, DecodeError

# csrc/delta/message.h, csrc/delta/message.c
_HEAD = 17
_FLAGS = 16
_CHECKED = 8
_ALIGN = 16
_KEY_FRAME = 1
_MOST_BYTES = 64 << 20
"""A corrupt length may ask for a list of gigabytes: that is a MemoryError at once, and not a slow test."""


def checked(message: bytes, seed: int) -> bytes:
    """With the check that its sender would have written: `csrc/packing/digest.c`, `delta/message.c`."""
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
            newcomers=[
                Newcomer(
                    f"new-{step}", [1, 2, 3000], ([step],), Params(0.5, {1, 70_000}, Manner.WILD)
                )
            ],
            flag=step % 2 == 0,
        )


class Deltas:
    """A request's decoder, or a reply's, in a state that it may well be in.

    An input's first byte says which message it stands in for, the second is its flags; the others are what
    comes before its pickle, which a run trusts, and which stays as it is.
    """

    def __init__(self) -> None:
        self._request_plan, self._replies = batch_plan(), ReplyCodec(outcome_plan())
        self._requests: list[bytes] = []
        self._answers: list[tuple[bytes, ReplyBase]] = []
        encoder, said, heard = DeltaEncoder(self._request_plan), None, None
        for batch in batches():
            self._requests.append(joined(encoder.encode(batch, 3, b"label")))
            encoder.sent()
            keys = sorted(batch.counts)
            index = {key: place for place, key in enumerate(keys)}
            outcome = Outcome(keys, index, [[batch.counts[key], 70_000] for key in keys])
            message, said = self._replies.encode(outcome, encoder.reply_base(said))
            base = encoder.reply_base(heard)
            _, heard = self._replies.decode(joined(message), base)
            self._answers.append((joined(message), base))
        # The last has no other behind it that could find it out.
        self._originals = self._requests[:-1] + [message for message, _ in self._answers]

    def close(self) -> None:
        pass

    def inputs(self) -> list[bytes]:
        return [
            bytes([number, message[_FLAGS]]) + message[_HEAD : _hot_end(message)]
            for number, message in enumerate(self._originals)
        ]

    def refuses(self, data: bytes) -> bool:
        """DecodeError comes when the flags promise a pickle that isn't there."""
        if len(data) < 2:
            return True
        number, flags, fields = data[0] % len(self._originals), data[1], data[2:]
        with _little_memory():
            if number < len(self._requests) - 1:
                return self._request(number, flags, fields)
            original, base = self._answers[number - len(self._requests) + 1]
            check, _, order = base
            message = _replaced(original, flags, fields, _word(check, order.digest if order else 0))
            return _refuses(lambda: self._replies.decode(message, base))

    def _request(self, at: int, flags: int, fields: bytes) -> bool:
        decoder = DeltaDecoder(self._request_plan)
        for message in self._requests[:at]:
            decoder.decode(message)
        # A key frame builds on nothing.
        seed = 0 if flags & _KEY_FRAME else decoder.reply_base(None)[0]
        message = _replaced(self._requests[at], flags, fields, seed)
        refused = _refuses(lambda: decoder.decode(message))
        # Whatever it was taken for: the ends have drifted apart, and the next message finds out.
        if message != self._requests[at]:
            assert _refuses(lambda: decoder.decode(self._requests[at + 1]))
        return refused


def _hot_end(message: bytes) -> int:
    return int.from_bytes(message[8:12], "little")


def _replaced(original: bytes, flags: int, fields: bytes, seed: int) -> bytes:
    """With other fields before its pickle, and the check that its sender would have written."""
    pickled = original[-(-_hot_end(original) // _ALIGN) * _ALIGN :]
    hot_end = _HEAD + len(fields)
    head = original[:8] + hot_end.to_bytes(4, "little") + original[12:_FLAGS] + bytes([flags])
    padding = bytes(-hot_end % _ALIGN) if pickled else b""
    return checked(head + fields + padding + pickled, seed)


def _refuses(decode: Callable[[], Any]) -> bool:
    try:
        repr(decode())
    except (CodecDesync, DecodeError, MemoryError):
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
