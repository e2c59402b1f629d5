"""Plain values as bytes: what small messages are made of."""

from __future__ import annotations

import enum
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpspmd._native import pack, unpack
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.errors import DecodeError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.just({}),
    lambda inner: st.lists(inner, max_size=5).map(tuple),
)


class Number(enum.IntEnum):
    ONE = 1


class Text(str): ...


def types(value: Any) -> Any:
    return tuple(map(types, value)) if isinstance(value, tuple) else type(value)


@given(PLAIN)
def test_plain_values_come_back_with_their_types(value: Any) -> None:
    packed = pack(value)
    assert packed is not None
    assert unpack(packed) == value
    assert types(unpack(packed)) == types(value)


@pytest.mark.parametrize("value", [-0.0, math.inf, math.nan])
def test_a_float_keeps_its_bits(value: float) -> None:
    packed = pack(value)
    assert packed is not None
    assert repr(unpack(packed)) == repr(value)


NOT_PLAIN = [
    [],
    {"key": 1},
    {1},
    1 << 63,
    1j,
    Number.ONE,
    Text("text"),
    bytearray(b"x"),
    memoryview(b"x"),
    np.int64(1),
    np.zeros(2),
    "\ud800",
    bytes((1 << 20) + 1),
    (None,) * 256,
    (1, (2, [3])),
    len,
]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_anything_else_is_left_to_pickle(value: Any) -> None:
    assert pack(value) is None
    assert pack((value,)) is None
    encoder = ObjectEncoder()
    if not isinstance(value, memoryview):
        message = encoder.encode(value)
        joined = b"".join(bytes(part) for part in message) if isinstance(message, list) else message
        back = decode(joined, isinstance(message, list))
        assert type(back) is type(value)
        assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value


def test_deep_tuples_are_left_to_pickle() -> None:
    value: Any = ()
    for _ in range(15):
        value = (value,)
    assert unpack(pack(value) or b"") == value
    assert pack((value,)) is None


def test_what_is_shared_many_times_is_left_to_pickle() -> None:
    value: Any = "x" * 100
    for _ in range(3):
        value = (value,) * 200
    assert pack(value) is None
    encoder = ObjectEncoder()
    assert len(encoder.encode(value)) < 10_000
    assert decode(encoder.encode(value), False) == value  # type: ignore[arg-type]


def test_a_pickle_is_not_taken_for_a_packed_value() -> None:
    for value in NOT_PLAIN[:5]:
        assert unpack(pickle.dumps(value, 5)) is NotImplemented
    assert unpack(b"") is NotImplemented


@given(PLAIN, st.data())
def test_a_message_that_is_cut_short_is_an_error(value: Any, data: st.DataObject) -> None:
    packed = pack(value)
    assert packed is not None
    end = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(DecodeError, match=f"a message of {end} bytes"):
        decode(packed[:end], False)
    with pytest.raises(DecodeError, match="cut short"):
        decode(packed + b"n", False)


@given(st.binary())
def test_no_bytes_do_more_than_fail(junk: bytes) -> None:
    try:
        value = unpack(b"\x01" + junk)
    except ValueError:
        return
    assert unpack(pack(value) or b"") == value or value != value
