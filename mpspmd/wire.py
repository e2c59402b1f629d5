"""What travels between the engine and its ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from mpspmd._ring import KIND_PACKED as KIND_PACKED
from mpspmd._ring import KIND_REPLY as KIND_REPLY
from mpspmd._ring import KIND_REQUEST as KIND_REQUEST
from mpspmd._ring import KIND_STEP as KIND_STEP

# What a message's kind says. Plain numbers: the operators of an enum are slow.
KIND_ERROR: Final = 3
"""A reply that is a Fault."""
# One of these flags may be added. KIND_PACKED: a plain value, packed by C. KIND_STEP: a message of the step
# codec; see codec/steps.py.
KIND_OUT_OF_BAND: Final = 0x8000
"""Buffers follow the pickle; see codec/objects.py."""
KIND_FLAGS: Final = KIND_PACKED | KIND_STEP | KIND_OUT_OF_BAND


ReplyRanks: TypeAlias = int | Literal["all"] | None
"""Who replies: one rank, all of them, or none."""

ALL: Final = "all"

Method: TypeAlias = str | Callable[..., Any]
"""The name of a method of the worker, or a callable that gets the worker as its first argument."""


def name_of(method: Method) -> str:
    """What errors, reports and records call the method."""
    if isinstance(method, str):
        return method
    name = getattr(method, "__qualname__", None)
    return name if isinstance(name, str) and name else repr(method)


@dataclass(slots=True)  # not frozen: that doubles what making one costs, at each step
class ExecuteModelRequest:
    """One request, as each rank gets it: every rank reads the same bytes and calls the same method."""

    step_id: int
    """Counts the engine's requests, from 1 on."""
    method: Method
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    reply_ranks: ReplyRanks = ALL

    @property
    def method_name(self) -> str:
        return name_of(self.method)

    def is_answered_by(self, rank: int) -> bool:
        return self.reply_ranks == ALL or self.reply_ranks == rank
