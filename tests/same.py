"""assert_same: equal in every field, of the same types, in the same order; and nothing in common."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import msgspec
import numpy as np

_SHARED = (str, int, float, bool, bytes, type(None), type, np.generic, enum.Enum)


def field_names(value: Any) -> list[str] | None:
    """Of a record: a dataclass or a Struct."""
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return None


def assert_same(sent: Any, got: Any, where: str = "it") -> None:
    assert type(sent) is type(got), f"{where}: {type(sent)} became {type(got)}"
    if isinstance(sent, _SHARED):
        assert repr(sent) == repr(got), f"{where}: {sent!r} became {got!r}"  # a NaN equals nothing
        return
    if sent is not got or sent not in ((), frozenset()):
        assert sent is not got, f"{where} is the very same object"
    if (names := field_names(sent)) is not None:
        for name in names:
            assert_same(getattr(sent, name), getattr(got, name), f"{where}.{name}")
    elif isinstance(sent, dict):
        assert list(sent) == list(got), f"{where}: the keys or their order"
        for key in sent:
            assert_same(sent[key], got[key], f"{where}[{key!r}]")
    elif isinstance(sent, list | tuple):
        assert len(sent) == len(got), f"{where}: {len(sent)} became {len(got)}"
        for i, (mine, yours) in enumerate(zip(sent, got, strict=True)):
            assert_same(mine, yours, f"{where}[{i}]")
    elif isinstance(sent, np.ndarray):
        assert (sent.dtype, sent.shape) == (got.dtype, got.shape), where
        assert sent.tobytes() == got.tobytes(), where
    elif hasattr(sent, "equal"):  # a tensor
        assert sent.dtype == got.dtype, where
        assert sent.equal(got), where
    else:
        assert sent == got, f"{where}: {sent!r} became {got!r}"
