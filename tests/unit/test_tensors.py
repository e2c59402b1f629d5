"""The codec: numpy arrays and tensors, whatever they look like."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from test_objects import message_of, there_and_back

from mpspmd._ring import Block
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.errors import EncodeError

pytestmark = [
    pytest.mark.timeout(60),
    # What torch says of its experimental and of its old types.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

_NUMPY_DTYPES = [
    *"?bBhHiIlLqQefdgFDG",
    "S7",
    "U5",
    "M8[us]",
    "m8[s]",
    "V5",
    ">i4",
    [("a", "i4"), ("b", ">f8", (2,)), ("c", "S3")],
]
_SHAPES = [(), (0,), (3, 0, 2), (5,), (4, 3), (700, 3)]


def _array(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))
    raw = np.random.default_rng(size).integers(0, 2, size * dtype.itemsize, np.uint8)
    if dtype.kind == "U":
        return np.array(["aé∀"] * size, dtype).reshape(shape)
    return raw.view(dtype).reshape(shape) if size else np.zeros(shape, dtype)


class TestArrays:
    @pytest.mark.parametrize("dtype", _NUMPY_DTYPES, ids=str)
    def test_every_dtype_comes_back_in_every_shape(self, dtype: Any) -> None:
        for shape in _SHAPES:
            array = _array(dtype, shape)
            again = there_and_back(array)
            assert (again.dtype, again.shape) == (array.dtype, array.shape)
            assert again.tobytes() == array.tobytes()
            assert again.flags.writeable

    @pytest.mark.parametrize(
        "view",
        [
            lambda a: a[::2],
            lambda a: a[:, 1:3],
            lambda a: a.T,
            lambda a: a[::-1, ::-1],
            lambda a: np.asfortranarray(a),
            lambda a: np.broadcast_to(a[0], (50, 40)),
            lambda a: a[3:4],
        ],
    )
    def test_any_view_comes_back_as_what_it_shows(self, view: Any) -> None:
        array = view(np.arange(2000).reshape(50, 40))
        assert np.array_equal(there_and_back(array), array)

    def test_an_array_of_objects_comes_back(self) -> None:
        array = np.array([1, "two", None, [4]], dtype=object)
        again = there_and_back(array)
        assert again.tolist() == array.tolist()

    @pytest.mark.parametrize("size", [10, 10_000])
    def test_a_decoded_array_owns_its_memory(self, size: int) -> None:
        payload, out_of_band = message_of([np.zeros(size), np.zeros(size)])
        before = bytes(payload)
        payload = bytearray(payload)
        with memoryview(payload).toreadonly() as view:
            first, second = decode(view, out_of_band)
        first += 1
        assert payload == before
        payload[:] = b"\xff" * len(payload)
        payload.clear()  # BufferError if the arrays looked at it
        assert first.sum() == size
        assert second.sum() == 0

    def test_arrays_from_a_payload_that_is_theirs_do_not_overlap(self) -> None:
        payload, _ = message_of([np.zeros(3001, np.uint8), np.zeros(3001, np.uint8)])
        first, second = decode(Block(payload), True)
        first += 1
        assert (first.sum(), second.sum()) == (3001, 0)
        assert first.flags.writeable


_TORCH_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16,
    torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.complex32, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


def _tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    size = int(np.prod(shape)) * dtype.itemsize
    top = 2 if dtype == torch.bool else 100
    raw = torch.from_numpy(np.random.default_rng(1).integers(0, top, size, np.uint8))
    return raw.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _assert_same(again: torch.Tensor, tensor: torch.Tensor) -> None:
    assert type(again) is type(tensor)
    assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
    assert again.requires_grad == tensor.requires_grad
    if tensor.numel():
        assert _bytes(again) == _bytes(tensor)


class Elsewhere(torch.Tensor):
    """A tensor on a device, for machines without any: torch says "cuda", and there is no memory."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...]) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, shape, device="cuda")

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise AssertionError(f"{function} would have used the device")


class TestTensors:
    @pytest.mark.parametrize("dtype", _TORCH_DTYPES, ids=str)
    def test_every_dtype_comes_back_in_every_shape(self, dtype: torch.dtype) -> None:
        for shape in _SHAPES:
            tensor = _tensor(dtype, shape)
            _assert_same(there_and_back(tensor), tensor)
            _assert_same(there_and_back(lambda t=tensor: t, by_value=True)(), tensor)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
    @pytest.mark.parametrize(
        "view",
        [
            lambda t: t[::2],
            lambda t: t[:, 1:3],
            lambda t: t.T,
            lambda t: t[0].expand(50, 40),
            lambda t: t[3:4],
            lambda t: t[7],
            lambda t: t[7, 7],
        ],
    )
    def test_any_view_comes_back_as_what_it_shows(self, view: Any, dtype: torch.dtype) -> None:
        tensor = view(_tensor(dtype, (50, 40)))
        _assert_same(there_and_back(tensor), tensor)

    def test_lazy_conjugates_and_negatives_come_back_as_what_they_show(self) -> None:
        number = torch.tensor([1 + 2j, 3 - 4j] * 500)
        assert torch.equal(there_and_back(number.conj()), number.conj())
        assert torch.equal(there_and_back(number.conj().imag), number.conj().imag)

    @pytest.mark.parametrize("size", [3, 3000])
    def test_parameters_and_gradients_stay_what_they_are(self, size: int) -> None:
        for tensor in (
            torch.nn.Parameter(torch.ones(size)),
            torch.nn.Parameter(torch.ones(size), requires_grad=False),
            torch.ones(size, requires_grad=True),
        ):
            _assert_same(there_and_back(tensor), tensor)
        again = there_and_back(torch.ones(size, requires_grad=True) * 2)
        assert torch.equal(again, torch.full((size,), 2.0))

    def test_a_tensor_that_occurs_twice_is_one_tensor_again(self) -> None:
        tensor = torch.ones(3000)
        first, second = there_and_back([tensor, tensor])
        assert first is second

    @pytest.mark.parametrize("size", [3, 3000])
    def test_a_decoded_tensor_owns_its_memory(self, size: int) -> None:
        payload, out_of_band = message_of([torch.zeros(size), torch.zeros(size)])
        payload = bytearray(payload)
        with memoryview(payload).toreadonly() as view:
            first, second = decode(view, out_of_band)
        before = bytes(payload)
        first += 1
        assert payload == before
        payload.clear()
        gc.collect()
        assert (first.sum(), second.sum()) == (size, 0)

    def test_a_large_tensor_stays_out_of_the_pickle_and_is_not_copied(self) -> None:
        tensor = torch.arange(1000)
        parts = ObjectEncoder().encode([tensor])
        assert isinstance(parts, list)
        assert any(
            np.shares_memory(tensor.numpy(), np.frombuffer(part, np.uint8))
            for part in parts
            if part
        )

    def test_a_module_comes_back_with_its_parameters(self) -> None:
        module = torch.nn.Linear(40, 30)
        again = there_and_back(module)
        assert torch.equal(again.weight, module.weight)
        assert isinstance(again.bias, torch.nn.Parameter)

    def test_sparse_quantized_meta_and_nested_tensors_pass(self) -> None:
        sparse = torch.eye(50).to_sparse()
        assert torch.equal(there_and_back(sparse).to_dense(), torch.eye(50))
        csr = torch.eye(50).to_sparse_csr()
        assert torch.equal(there_and_back(csr).to_dense(), torch.eye(50))
        quantized = torch.quantize_per_tensor(torch.ones(500), 0.1, 0, torch.qint8)
        assert torch.equal(there_and_back(quantized).dequantize(), quantized.dequantize())
        meta = there_and_back(torch.empty(5, 4, device="meta"))
        assert (meta.device.type, meta.shape) == ("meta", (5, 4))

    def test_a_tensor_on_a_device_is_refused_with_the_remedy(self) -> None:
        tensor = Elsewhere((3, 4))
        assert tensor.device.type == "cuda"
        encoder = ObjectEncoder()
        for by_value in (False, True):
            with pytest.raises(EncodeError, match=r"\(3, 4\) on cuda.*worker's state") as caught:
                encoder.encode({"hidden": [tensor]}, by_value=by_value)
            assert isinstance(caught.value, TypeError)
        assert decode(encoder.encode("usable"), False) == "usable"
