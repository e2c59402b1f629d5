"""The codec: Python objects, what it refuses, and messages that can't be decoded."""

from __future__ import annotations

import dataclasses
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpspmd._ring import Block
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.errors import DecodeError, EncodeError

pytestmark = pytest.mark.timeout(60)


def message_of(obj: Any, *, by_value: bool = False) -> tuple[bytes, bool]:
    """An object's message in one piece, as a ring shows it, and whether buffers are out of band."""
    message = ObjectEncoder().encode(obj, by_value=by_value)
    if isinstance(message, list):
        return b"".join(bytes(part) for part in message), True
    return message, False


def there_and_back(obj: Any, *, by_value: bool = False) -> Any:
    payload, out_of_band = message_of(obj, by_value=by_value)
    # In memory that can't be written, as a ring is shown, and that is gone right after.
    with memoryview(payload) as view:
        return decode(view, out_of_band)


@dataclasses.dataclass
class Point:
    x: float
    data: bytes = b""


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=50)
    | st.binary(max_size=5_000)
    | st.complex_numbers(allow_nan=False)
    | st.builds(Point, st.floats(allow_nan=False), st.binary(max_size=3000))
    | st.builds(bytearray, st.binary(max_size=5_000))
)
_NESTED = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)


class TestObjects:
    @settings(max_examples=60, deadline=None, database=None)
    @given(_NESTED)
    def test_nested_data_comes_back_equal(self, obj: Any) -> None:
        assert there_and_back(obj) == obj

    @settings(max_examples=30, deadline=None, database=None)
    @given(_NESTED)
    def test_by_value_makes_no_difference_to_data(self, obj: Any) -> None:
        assert there_and_back(obj, by_value=True) == obj

    def test_an_object_that_occurs_twice_is_one_object_again(self) -> None:
        shared = [1, 2]
        first, second = there_and_back([shared, shared])
        assert first is second

    def test_an_object_may_hold_itself(self) -> None:
        ring: list[Any] = []
        ring.append(ring)
        again = there_and_back(ring)
        assert again[0] is again

    @pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 100_000])
    def test_buffers_of_every_size_come_back_and_can_be_changed(self, size: int) -> None:
        data = bytearray(range(256)) * (size // 256 + 1)
        arrays = [np.frombuffer(data, np.uint8, size).copy() for _ in range(3)]
        back = there_and_back(arrays)
        for array, again in zip(arrays, back, strict=True):
            assert np.array_equal(array, again)
            again[:] = 0
        assert all(array.sum() == arrays[0].sum() for array in arrays)

    def test_large_buffers_stay_out_of_the_pickle_and_are_not_copied_by_the_encoder(self) -> None:
        array = np.arange(1000)
        parts = ObjectEncoder().encode({"a": array})
        assert isinstance(parts, list)
        assert any(np.shares_memory(array, np.frombuffer(part, np.uint8)) for part in parts if part)

    def test_every_part_of_a_message_is_aligned_to_16_bytes(self) -> None:
        parts = ObjectEncoder().encode([np.ones(n, np.uint8) for n in (1025, 1039, 2000, 1024)])
        at = 0
        for part in parts:
            if len(part) >= 1024:
                assert at % 16 == 0
            at += len(part)
        assert at % 16 == 0


class TestFunctions:
    def test_lambdas_and_closures_go_by_value(self) -> None:
        base = np.arange(1000)
        add = there_and_back(lambda x: x + int(base.sum()), by_value=True)
        assert add(1) == 499_501

    def test_local_classes_go_by_value_with_their_instances(self) -> None:
        class Local:
            def __init__(self, value: int) -> None:
                self.value = value

            def double(self) -> int:
                return 2 * self.value

        again = there_and_back([Local(4), Local])
        assert again[0].double() == 8
        assert isinstance(again[0], again[1])

    def test_a_lambda_inside_data_goes_by_value_without_being_asked(self) -> None:
        assert there_and_back({"f": lambda: 5})["f"]() == 5

    def test_what_can_be_imported_goes_by_name(self) -> None:
        assert there_and_back(struct.pack) is struct.pack
        assert there_and_back(Point) is Point

    def test_large_arrays_in_a_closure_stay_out_of_the_pickle(self) -> None:
        base = np.arange(10_000)
        payload, out_of_band = message_of(lambda: base, by_value=True)
        assert out_of_band
        again = decode(payload, out_of_band)()
        assert np.array_equal(again, base)


def _generator() -> Any:
    yield 1


class _Failing:
    def __reduce__(self) -> Any:
        raise ValueError("a reason of its own")


class TestRefusals:
    @pytest.mark.parametrize(
        "make", [threading.Lock, threading.Event, socket.socket, _generator, _Failing]
    )
    @pytest.mark.parametrize("by_value", [False, True])
    def test_what_cannot_be_sent_is_refused(self, make: Callable[[], Any], by_value: bool) -> None:
        with pytest.raises(EncodeError, match="can't be sent to another process") as caught:
            ObjectEncoder().encode({"key": [make()]}, by_value=by_value)
        assert isinstance(caught.value, TypeError)

    def test_nesting_that_is_too_deep_is_refused(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(EncodeError):
            ObjectEncoder().encode(deep)
        while deep:  # or its end would be too deep as well
            deep = deep[0]

    def test_an_encoder_is_as_good_as_new_after_a_failure(self) -> None:
        encoder = ObjectEncoder()
        array = np.arange(1000)
        expected = b"".join(map(bytes, ObjectEncoder().encode([array, "x"])))
        for _ in range(3):
            with pytest.raises(EncodeError):
                encoder.encode([array, threading.Lock()])
            assert b"".join(map(bytes, encoder.encode([array, "x"]))) == expected

    def test_an_encoder_keeps_nothing_alive(self) -> None:
        encoder = ObjectEncoder()
        big = np.zeros(10_000)
        alive = weakref.ref(big)
        encoder.encode([big])
        with pytest.raises(EncodeError):
            encoder.encode([big, threading.Lock()])
        del big
        assert alive() is None


_GOOD = {"a": np.arange(1000), "b": [np.ones(3000, np.uint8), "text", 5]}


class TestGarbage:
    def test_a_message_that_is_cut_short_anywhere_is_refused(self) -> None:
        payload, out_of_band = message_of(_GOOD)
        assert out_of_band
        for length in (*range(200), *range(200, len(payload) - 16, 97)):
            with pytest.raises(DecodeError):
                decode(payload[:length], True)

    def test_a_plain_message_that_is_cut_short_anywhere_is_refused(self) -> None:
        payload, out_of_band = message_of(["text", 5, {"a": 1.5}])
        assert not out_of_band
        for length in range(len(payload)):
            with pytest.raises(DecodeError):
                decode(payload[:length], False)

    @pytest.mark.parametrize("payload", [b"", b"\0", b"garbage" * 9, bytes(64), b"\xff" * 64])
    @pytest.mark.parametrize("out_of_band", [False, True])
    def test_garbage_is_refused(self, payload: bytes, out_of_band: bool) -> None:
        for kind in (bytes, Block, memoryview):
            with pytest.raises(DecodeError):
                decode(kind(payload), out_of_band)

    @pytest.mark.parametrize("count", [0, 1, 3, 1000, 0xFFFFFFFF])
    def test_a_wrong_number_of_buffers_is_refused(self, count: int) -> None:
        payload, _ = message_of(_GOOD)
        with pytest.raises(DecodeError):
            decode(struct.pack("<I", count) + payload[4:], True)

    @pytest.mark.parametrize("at", [8, 16, 24])
    @pytest.mark.parametrize("length", [0, 1, 1 << 20, 1 << 63, (1 << 64) - 1])
    def test_a_wrong_length_is_refused(self, at: int, length: int) -> None:
        payload, _ = message_of(_GOOD)
        with pytest.raises(DecodeError):
            decode(payload[:at] + struct.pack("<Q", length) + payload[at + 8 :], True)

    def test_a_message_that_is_refused_leaves_no_view_of_its_payload(self) -> None:
        payload = bytearray(message_of(_GOOD)[0])
        payload[0] = 3
        with memoryview(payload) as view, pytest.raises(DecodeError):
            decode(view.toreadonly(), True)
        payload.append(0)  # BufferError if anybody still looked at it

    def test_the_error_says_what_is_missing(self) -> None:
        payload = message_of(Point(1.0))[0].replace(b"Point", b"Pxint")
        with pytest.raises(DecodeError, match=r"Pxint.*importable"):
            decode(payload, False)
