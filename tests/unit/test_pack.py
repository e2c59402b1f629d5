"""Plain values as bytes: what small messages are made of."""

from __future__ import annotations

import codecs
import enum
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpspmd._ring import pack, unpack
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.errors import DecodeError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
KEYS = SCALARS | st.lists(SCALARS, max_size=2).map(tuple)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5).map(tuple)
        | st.lists(inner, max_size=5)
        | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=20,
)


class Number(enum.IntEnum):
    ONE = 1


class Text(str): ...


def types(value: Any) -> Any:
    """Of the value and of all in it, in their order."""
    if isinstance(value, dict):
        value = tuple(value.items())
        return dict, tuple(map(types, value))
    return (type(value), *map(types, value)) if isinstance(value, tuple | list) else type(value)


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


SHARED: list[Any] = [1]
ITSELF: list[Any] = []
ITSELF.append(ITSELF)

NOT_PLAIN = [
    [1, {2}],
    {"key": object},
    {1},
    frozenset([1]),
    (SHARED, SHARED),
    [SHARED, {"again": SHARED}],
    OrderedDict(key=1),
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
    [None] * 256,
    dict.fromkeys(range(256)),
    (1, (2, [len])),
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


@pytest.mark.parametrize("around", [lambda inner: (inner,), lambda inner: [inner]])
def test_what_is_nested_deeply_is_left_to_pickle(around: Callable[[Any], Any]) -> None:
    value: Any = ()
    for _ in range(15):
        value = around(value)
    assert unpack(pack(value) or b"") == value
    assert pack(around(value)) is None


@pytest.mark.parametrize("value", [(SHARED, SHARED), {"a": SHARED, "b": (SHARED,)}])
def test_what_is_one_object_stays_one(value: Any) -> None:
    back = decode(ObjectEncoder().encode(value), False)  # type: ignore[arg-type]
    first, second = back.values() if isinstance(back, dict) else back
    second = second[0] if isinstance(second, tuple) else second
    assert first == SHARED
    assert first is second


def test_what_contains_itself_is_left_to_pickle() -> None:
    assert pack(ITSELF) is None
    back = decode(ObjectEncoder().encode(ITSELF), False)  # type: ignore[arg-type]
    assert back[0] is back


def test_many_lists_are_left_to_pickle() -> None:
    value: list[Any] = [[number] for number in range(31)]
    assert unpack(pack(value) or b"") == value
    value.append([31])
    assert pack(value) is None


def test_what_comes_back_is_a_list_of_its_own() -> None:
    value = {"list": [1, 2]}
    packed = pack(value) or b""
    value["list"].append(3)
    assert unpack(packed) == {"list": [1, 2]}
    assert unpack(packed)["list"] is not unpack(packed)["list"]


@pytest.mark.parametrize(
    "made_up",
    [
        b"{\x01[\x00n",  # a list as a key
        b"{\x02nnnn",  # a key twice
        b"[\x21" + 33 * b"[\x00",  # a list too many
        b"s" + struct.pack("<I", (1 << 20) + 1) + bytes((1 << 20) + 1),
    ],
    ids=["unhashable", "twice", "many", "long"],
)
def test_what_pack_never_makes_is_damage(made_up: bytes) -> None:
    with pytest.raises(ValueError, match="cut short, or isn't one"):
        unpack(b"\x01" + made_up)


@pytest.mark.parametrize("text", ["x\ud800", "\N{SNOWMAN}\udfff", "\U0001f600\ud800"])
def test_nobodys_error_handler_is_asked_about_surrogates(text: str) -> None:
    asked: list[Exception] = []

    def handler(error: UnicodeError) -> tuple[str, int]:
        asked.append(error)
        value.clear()
        return "?" * 1000, len(text)

    value = ["before", text, "after"]
    strict = codecs.lookup_error("strict")
    codecs.register_error("strict", handler)
    try:
        assert pack(value) is None
    finally:
        codecs.register_error("strict", strict)
    assert asked == []


def test_what_is_nested_is_measured_once() -> None:
    """At each of 13 levels a megabyte: the limit is that of all of them together."""
    value: Any = b""
    for _ in range(13):
        value = (value, "x" * (1 << 20))
    assert pack(value) is None
    assert pack(("x" * (1 << 19), ["y" * (1 << 19)])) is None
    assert pack(("x" * (1 << 19), ["y" * (1 << 18)])) is not None


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
    packed = pack(value)
    assert packed is not None  # a digest of what was received needs it again
    assert pack(unpack(packed)) == packed
