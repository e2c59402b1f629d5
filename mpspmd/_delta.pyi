"""The delta codec: records as what has changed since the last ones, in C. See csrc/delta/README.md."""

from collections.abc import Callable
from typing import Any, TypeVar, final

from typing_extensions import Buffer

FIELD_PLAIN: int
FIELD_RECORD: int
FIELD_RECORDS: int
FIELD_MEMBER: int
FIELD_KEYS: int
FIELD_COUNTS: int
FIELD_PROGRESS: int
FIELD_TREND: int
FIELD_GROUPS: int
FIELD_GROUP: int
FIELD_LISTS: int
FIELD_TAILS: int
FIELD_TOKENS: int
FIELD_KEY: int
FIELD_KEYSET: int
FIELD_FINISHED: int
FIELD_ORDER: int
FIELD_INDEX: int

_Order = TypeVar("_Order")
_ReplyBase = tuple[int, list[str], ReplyOrder | None]
_Dumps = Callable[[Any], bytes | list[Any]]
_Loads = Callable[[Any, bool, int], Any]

class Plan:
    """How the fields of a dataclass or Struct are sent: see codec/delta.py. Any thread.

    ValueError for fields that don't go together: of requests and of replies, or two of a kind that a
    message has once. `has_dict`: instances have a `__dict__`; `in_dict`: all fields are in it.
    """

    def __init__(
        self,
        cls: type,
        fields: tuple[tuple[str, int, Plan | tuple[Any, ...] | None], ...],
        blank: dict[str, None],
        known: frozenset[str],
        has_dict: bool,
        in_dict: bool,
    ) -> None: ...
    def encode_reply(
        self, record: Any, base: _ReplyBase, dumps: _Dumps, /
    ) -> tuple[bytes | list[Any], ReplyOrder | None]: ...
    def decode_reply(
        self, payload: Buffer, base: _ReplyBase, loads: _Loads, /
    ) -> tuple[Any, ReplyOrder | None]: ...

@final
class ReplyOrder:
    """The order of a reply's keys. A later reply may be encoded against it.

    Made by encode_reply() and decode_reply() only, and the same on both ends. Never changed.
    """

    @property
    def digest(self) -> int: ...

class DeltaEncoder:
    """One end of a delta codec. One thread at a time; RuntimeError when it is at work already."""

    def __init__(self, plan: Plan) -> None: ...
    def __len__(self) -> int: ...
    def encode(
        self, record: Any, note: int, label: bytes, extra: Any, dumps: _Dumps, /
    ) -> bytes | list[Any]:
        """`dumps` gets the list of all values that have no compact form."""
    def sent(self) -> None:
        """Call this when the last message has been sent. Otherwise the next one is a key frame."""
    def reset(self) -> None: ...
    def reply_base(self, order: _Order, /) -> tuple[int, list[str], _Order]:
        """The check and the keys of the last message's counts, which are not to be changed."""

class DeltaDecoder:
    """The other end."""

    def __init__(self, plan: Plan) -> None: ...
    def __len__(self) -> int: ...
    def decode(self, payload: Buffer, loads: _Loads, /) -> tuple[Any, int, bytes, Any]: ...
    def reply_base(self, order: _Order, /) -> tuple[int, list[str], _Order]: ...
