"""The layout of a recording: MAGIC, then records. Each has a head, a method's name and a payload.

The checksum of a record continues that of the record before, so that a missing record is noticed, too.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

import msgspec

from mpspmd.wire import ALL, ReplyRanks

MAGIC = b"mpspmd requests 1\n"

HEAD = struct.Struct("<BxHiQQQH")
"""type, kind of the message, rank, step, nanoseconds of a monotonic clock, bytes of payload and of name."""
CHECKSUM = struct.Struct("<I")
"""It follows the head: a CRC-32 of head, name and payload."""

_ALL, _NOBODY = -1, -2


class Type(enum.IntEnum):
    ABOUT = 1
    """An About, as JSON."""
    SPEC = 2
    """A Spec, as MessagePack."""
    REQUEST = 3
    """The payload is what the ranks got; the rank is who replies."""
    REPLY = 4
    """The payload is what the engine got."""
    UNSENT = 5
    """The last request before this record wasn't sent, if it has this record's step. The next request may
    have the same step."""
    GAP = 6
    """Before this record the file repeats the steps of the start. After it the recording goes on at this
    record's step. The steps in between are in the file before, which may be gone."""
    END = 7
    """The recording ended in order; the payload says why."""


class About(msgspec.Struct, frozen=True):
    """What a recording begins with. Reading it runs no code."""

    pid: int
    time: float
    """In seconds since 1970."""
    world_size: int
    worker: str
    """module:Class"""
    fatal_methods: list[str]
    versions: dict[str, str]
    environ: dict[str, str]
    """Variables that change what the ranks compute."""
    settings: dict[str, Any]
    """Those fields of RuntimeConfig that a replay takes over."""


class Spec(msgspec.Struct, frozen=True):
    """What the ranks were started with, as pickles; empty if it couldn't be pickled."""

    worker: bytes
    args: bytes
    """(args, kwargs)"""
    step_codec: bytes


@dataclass(frozen=True, slots=True)
class Record:
    type: Type
    kind: int
    rank: int
    step: int
    time_ns: int
    name: str
    payload: bytes

    @property
    def reply_ranks(self) -> ReplyRanks:
        """Who replies to this request."""
        return ALL if self.rank == _ALL else None if self.rank == _NOBODY else self.rank


def as_rank(reply_ranks: ReplyRanks) -> int:
    """How a request's record says who replies."""
    if isinstance(reply_ranks, int):
        return reply_ranks
    return _ALL if reply_ranks == ALL else _NOBODY
