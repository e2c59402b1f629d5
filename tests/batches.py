"""Batch and Outcome: dataclasses with a field of each kind that the delta codec knows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from mpspmd import Worker
from mpspmd._delta import Plan
from mpspmd.codec.delta import Kind, plan
from mpspmd.codec.steps import StepCodec


@dataclass
class Rows:
    keys: Any = field(default_factory=list)
    progress: Any = field(default_factory=list)
    trend: Any = field(default_factory=list)
    groups: Any = field(default_factory=list)
    lists: Any = field(default_factory=list)
    tails: Any = field(default_factory=dict)
    again: Any = field(default_factory=set)

    @cached_property
    def n_keys(self) -> int:
        return len(self.keys)


@dataclass
class Batch:
    counts: Any = field(default_factory=dict)
    total: Any = 0
    rows: Any = field(default_factory=Rows)
    drafts: Any = field(default_factory=dict)
    finished: Any = field(default_factory=set)
    paused: Any = None
    anything: Any = None
    flag: Any = False
    newcomers: Any = field(default_factory=list)


class Manner(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Mixin:
    """With a base like this one, and only then, a Struct can be made without its constructor."""


class Params(Mixin, msgspec.Struct, dict=True):
    """Its constructor is not asked: what it would refuse was set later, by somebody who may."""

    warmth: Any = 1.0
    stops: Any = msgspec.field(default_factory=set)
    manner: Any = Manner.CALM

    def __post_init__(self) -> None:
        if self.warmth == 451.0:
            raise ValueError("too hot")

    @cached_property
    def is_warm(self) -> bool:
        return bool(self.warmth)


@dataclass
class Newcomer:
    key: Any = ""
    prompt: Any = None
    blocks: Any = ()
    params: Any = None


@dataclass
class Outcome:
    keys: Any = field(default_factory=list)
    index: Any = field(default_factory=dict)
    tokens: Any = field(default_factory=list)
    anything: Any = None


def batch_plan(batch: type = Batch) -> Plan:
    rows = plan(
        Rows,
        {
            "keys": Kind.KEYS,
            "progress": Kind.PROGRESS,
            "trend": Kind.TREND,
            "groups": Kind.GROUPS,
            "lists": Kind.LISTS,
            "tails": Kind.TAILS,
            "again": Kind.KEYSET,
        },
    )
    newcomer = {
        "key": Kind.KEY,
        "blocks": Kind.GROUP,
        "params": plan(Params, {"manner": Manner}),
    }
    hot: dict[str, Any] = {
        "counts": Kind.COUNTS,
        "rows": rows,
        "drafts": Kind.TOKENS,
        "finished": Kind.FINISHED,
        "paused": Kind.KEYSET,
        "newcomers": [plan(Newcomer, newcomer)],
    }
    return plan(batch, hot)


def outcome_plan() -> Plan:
    return plan(Outcome, {"keys": Kind.ORDER, "index": Kind.INDEX, "tokens": Kind.LISTS})


CODEC = StepCodec(Batch, batch_plan, Outcome, outcome_plan)


def joined(message: Any) -> bytes:
    """A message as it lies in the ring."""
    return b"".join(map(bytes, message)) if isinstance(message, list) else bytes(message)


class Sampler(Worker):
    """Answers a batch with an outcome: its keys in reverse, and their counts."""

    def execute_model(self, batch: Batch, *more: Any, **named: Any) -> Any:
        if batch.flag:
            raise ValueError("as asked")
        keys = list(batch.counts)[::-1]
        index = {key: i for i, key in enumerate(keys)}
        return Outcome(keys, index, [[batch.counts[key], -1] for key in keys], (more, named))

    def echo(self, value: Any) -> Any:
        return value
