"""Dataclasses and Structs as deltas against what both ends hold: the Python side of `csrc/delta/`.

Ends that have seen the same messages in the same order hold the same rows: one for each key (a request's
id) that a message has named and none has finished. Each message carries its number and a checksum of its
bytes and of the rows that it builds on. If these don't match, `CodecDesync` is raised before anything of
the message is decoded.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

import msgspec

from mpspmd import _delta
from mpspmd._delta import ReplyOrder as ReplyOrder
from mpspmd.codec.objects import Message, ObjectEncoder, Payload, decode

ReplyBase: TypeAlias = tuple[int, list[str], ReplyOrder | None]
"""What both ends know of a request when its reply is encoded: check, scheduled keys, an earlier order."""


class Kind(enum.IntEnum):
    """How a field is sent. A value whose shape isn't the kind's is sent as PLAIN."""

    PLAIN = _delta.FIELD_PLAIN
    """Compact for None, bools, numbers, str, empty containers, lists and sets of ints; else a pickle."""
    RECORD = _delta.FIELD_RECORD
    """A record that has its own plan."""
    MEMBER = _delta.FIELD_MEMBER
    """A member of an enum that the plan names."""
    RECORDS = _delta.FIELD_RECORDS
    """A list of records that have one plan."""
    KEYS = _delta.FIELD_KEYS
    """list[str]: the rows of this message, in order. Sent as edits of one of the last orders."""
    COUNTS = _delta.FIELD_COUNTS
    """dict[str, int]: predicted to have the same values as last time."""
    PROGRESS = _delta.FIELD_PROGRESS
    """list[int], one for each of KEYS: predicted to grow by the row's last count."""
    TREND = _delta.FIELD_TREND
    """list[int], one for each of KEYS: predicted to grow by as much as last time."""
    GROUPS = _delta.FIELD_GROUPS
    """list[tuple[list[int], ...] | None]: mostly None."""
    GROUP = _delta.FIELD_GROUP
    """tuple[list[int], ...]"""
    LISTS = _delta.FIELD_LISTS
    """list[list[int]], packed."""
    TAILS = _delta.FIELD_TAILS
    """dict[str, list[int]]: lists that grow at their end; only what is new is sent."""
    TOKENS = _delta.FIELD_TOKENS
    """dict[str, list[int]], packed."""
    KEY = _delta.FIELD_KEY
    """str: the key of a row that is held, mostly one of this message."""
    KEYSET = _delta.FIELD_KEYSET
    """set[str]"""
    FINISHED = _delta.FIELD_FINISHED
    """set[str]: the keys of rows that end with this message."""
    ORDER = _delta.FIELD_ORDER
    """list[str] in a reply, sent as edits of an earlier reply's ORDER."""
    INDEX = _delta.FIELD_INDEX
    """dict[str, int] in a reply: the index of each key in ORDER."""


# The order in which kinds are written: after those that they build on.
_TURN = {
    Kind.FINISHED: 0,
    Kind.RECORD: 1,
    Kind.KEYS: 1,
    Kind.COUNTS: 3,
    Kind.INDEX: 3,
} | dict.fromkeys((Kind.PROGRESS, Kind.TREND, Kind.GROUPS, Kind.LISTS, Kind.ORDER), 2)
_LAST = 4

How: TypeAlias = Kind | _delta.Plan | list[_delta.Plan] | type[enum.Enum]


def plan(cls: Any, hot: Mapping[str, How]) -> _delta.Plan:
    """How to send instances of a dataclass or msgspec.Struct: the fields in `hot` as it says, others PLAIN.

    In `hot`, a plan stands for a record, a list of one plan for a list of records, an enum for one of its
    members. TypeError for a class whose instances can't be made without its constructor, as most Structs.
    """
    if issubclass(cls, msgspec.Struct):
        names = list(cls.__struct_fields__)
    else:
        names = [field.name for field in dataclasses.fields(cls)]
    fields: list[tuple[str, int, Any]] = []
    for name in names:
        how = hot.get(name, Kind.PLAIN)
        if isinstance(how, _delta.Plan):
            fields.append((name, int(Kind.RECORD), how))
        elif isinstance(how, list):
            fields.append((name, int(Kind.RECORDS), how[0]))
        elif isinstance(how, type):
            fields.append((name, int(Kind.MEMBER), tuple(how)))
        else:
            fields.append((name, int(how), None))
    fields.sort(key=lambda field: _TURN.get(Kind(field[1]), _LAST))
    derived = {
        name
        for base in cls.__mro__
        for name, attribute in vars(base).items()
        if isinstance(attribute, cached_property)
    }
    known = frozenset(names) | derived
    has_dict = cls.__dictoffset__ != 0
    # Attributes live in the instance's dict, unless a base class has a slot or a property of that name.
    in_dict = has_dict and not any(
        inspect.isdatadescriptor(getattr(cls, name, None)) for name in names
    )
    return _delta.Plan(cls, tuple(fields), dict.fromkeys(names), known, has_dict, in_dict)


class DeltaEncoder:
    """The sending end. One thread at a time."""

    def __init__(self, request_plan: _delta.Plan) -> None:
        native = self._delta = _delta.DeltaEncoder(request_plan)
        self._dumps = ObjectEncoder().encode
        # Bound once, because they are called in each step.
        self.sent = native.sent
        """Call it when a message has been sent. Otherwise a key frame with its number replaces it."""
        self.reset = native.reset
        """Makes the next message a key frame, which needs no rows."""
        self.reply_base = native.reply_base
        """(order) -> what replies to the last message are encoded against, a ReplyBase."""

    def __len__(self) -> int:
        """How many rows are held."""
        return len(self._delta)

    def encode(
        self, record: Any, note: int = 0, label: bytes = b"", extra: object = None
    ) -> Message:
        """A message with a record of the plan's class, a number, a label, and any object.

        EncodeError, or AttributeError when a field is missing; the next message is a key frame then.
        """
        return self._delta.encode(record, note, label, extra, self._dumps)


class DeltaDecoder:
    """The receiving end. One thread at a time."""

    def __init__(self, request_plan: _delta.Plan) -> None:
        native = self._delta = _delta.DeltaDecoder(request_plan)
        self.reply_base = native.reply_base
        """Like the encoder's."""

    def __len__(self) -> int:
        return len(self._delta)

    def decode(self, payload: Payload) -> tuple[Any, int, bytes, Any]:
        """(record, note, label, extra): new objects, which the caller may change.

        CodecDesync, then for all messages until a key frame. DecodeError when a pickle in the message can't
        be loaded; later messages can be decoded.
        """
        return self._delta.decode(payload, decode)


class ReplyCodec:
    """Encodes replies against their request. It holds no state, so any reply may be lost."""

    def __init__(self, reply_plan: _delta.Plan) -> None:
        self._plan = reply_plan
        self._dumps = ObjectEncoder().encode

    def encode(self, record: Any, base: ReplyBase) -> tuple[Message, ReplyOrder | None]:
        """A message, and the order on which later replies may build. One thread at a time."""
        return self._plan.encode_reply(record, base, self._dumps)

    def decode(self, payload: Payload, base: ReplyBase) -> tuple[Any, ReplyOrder | None]:
        """A new object, and the same order as encode() returned. CodecDesync, DecodeError."""
        return self._plan.decode_reply(payload, base, decode)
