"""What travels between the engine and its ranks."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from mpspmd._ring import KIND_PACKED


class Kind(enum.IntEnum):
    """What a message's kind says. One of the flags may go with it."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    PACKED = KIND_PACKED  # a plain value
    STEP = 0x4000  # a message of the step codec; see codec/steps.py
    OUT_OF_BAND = 0x8000  # buffers follow the pickle; see codec/objects.py


ReplyRanks: TypeAlias = int | Literal["all"] | None
"""Who replies: one rank, all of them, or none."""

ALL: Final = "all"


@dataclass(slots=True)  # not frozen: that doubles what making one costs, at each step
class ExecuteModelRequest:
    """One request, as each rank gets it: every rank reads the same bytes and calls the same method."""

    step_id: int
    """Counts the engine's requests, from 1 on."""
    method: str | Callable[..., Any]
    """The name of a method of the worker, or a callable that gets the worker as its first argument."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    reply_ranks: ReplyRanks = ALL
    reply_base: Any = None
    """What the step codec encodes replies to this request against."""

    @property
    def method_name(self) -> str:
        if isinstance(self.method, str):
            return self.method
        return getattr(self.method, "__qualname__", None) or repr(self.method)

    def is_answered_by(self, rank: int) -> bool:
        return self.reply_ranks == ALL or self.reply_ranks == rank


@dataclass(frozen=True)
class RemoteException:
    """An exception that another process raised, as far as it can be sent."""

    method: str
    exception: str
    message: str
    traceback: str
    unknown_method: bool = False
    original: bytes | None = None
    """See exceptions/original.py. Bytes, so that what can't be rebuilt doesn't take the rest with it."""
