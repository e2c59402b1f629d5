"""Pickles a CPU tensor as a buffer of its bytes, which can go out of band."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from mpspmd.errors import EncodeError

if TYPE_CHECKING:
    import torch


def reduce_tensor(tensor: torch.Tensor) -> Any:
    """What pickle's reducer_override returns for a strided CPU tensor of any dtype, shape and strides.

    NotImplemented for other layouts (sparse, quantized, meta), which torch pickles itself. EncodeError for
    a tensor on a device: another process can't read it, and a hidden copy to the CPU would cost a step.
    """
    import torch

    if tensor.device.type not in ("cpu", "meta"):
        raise EncodeError(
            f"a tensor of shape {tuple(tensor.shape)} on {tensor.device} can't be sent to another "
            "process: keep it in the worker's state, or send tensor.cpu()"
        )
    if (
        tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.is_nested
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    ):
        return NotImplemented
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = pickle.PickleBuffer(flat.view(torch.uint8).numpy().data) if flat.numel() else None
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    needs_grad = tensor.requires_grad and (is_parameter or tensor.is_leaf)
    return rebuild_tensor, (data, tensor.dtype, tuple(tensor.shape), needs_grad, is_parameter)


def rebuild_tensor(
    data: Any, dtype: torch.dtype, shape: tuple[int, ...], needs_grad: bool, is_parameter: bool
) -> torch.Tensor:
    """The tensor again, in the buffer that the decoder made for it."""
    import torch

    if data is None:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        # A small buffer of a read-only array, pickled in band, comes back as bytes.
        buffer = bytearray(data) if isinstance(data, bytes) else data
        tensor = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).reshape(shape)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=needs_grad)
    return tensor.requires_grad_(needs_grad) if needs_grad else tensor
