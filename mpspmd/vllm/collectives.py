"""Watches the collectives of vLLM on CPUs: how long each rank waits in them, and which was the last."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch

from mpspmd.rank.collectives import CountedGroup

_COLLECTIVES = ("shm_allreduce", "shm_all_gather", "shm_gather")
_BETWEEN_TWO = ("shm_send_tensor_list", "shm_recv_tensor_list")
_KEY = torch._C.DispatchKey.BackendSelect
"""PyTorch calls a kernel of this key before that of the device, also for an operator without tensors."""

Kernel: TypeAlias = Callable[..., Any]


def watch_collectives(waiting: AbstractContextManager[None]) -> object:
    """Each collective of vLLM in shared memory counts as `waiting`, and stall reports name the last one.

    Call it when vLLM's operators are loaded. It concerns the process groups that are made afterwards, and
    lasts as long as the returned object does. A call takes about 3 µs longer.

    vLLM calls these operators itself or in compiled code, so only PyTorch's dispatcher sees them all. On
    devices other than CPUs vLLM doesn't have them. There a collective is queued on the device, and the time
    of the call says nothing.
    """
    library: Any = torch.library.Library("_C", "IMPL")  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops._C, "init_shm_manager"):
        return library
    groups: dict[int, CountedGroup] = {}
    kernels = {"init_shm_manager": _making(groups)}
    kernels |= {name: _counting(name, groups, waiting) for name in _COLLECTIVES}
    kernels |= {name: _timing(name, waiting) for name in _BETWEEN_TWO}
    for name, kernel in kernels.items():
        library.impl(name, kernel, _KEY.name, with_keyset=True)
    return library


def _making(groups: dict[int, CountedGroup]) -> Kernel:
    make = torch.ops._C.init_shm_manager.default.redispatch

    def kernel(keys: Any, name: str, *args: Any) -> int:
        handle: int = make(keys.remove(_KEY), name, *args)
        of_engine = os.environ.get("VLLM_DIST_IDENT", "") + "-"
        groups[handle] = CountedGroup(name.removeprefix(of_engine).removesuffix("-cpushm"))
        return handle

    return kernel


def _counting(
    name: str, groups: dict[int, CountedGroup], waiting: AbstractContextManager[None]
) -> Kernel:
    # It releases the interpreter's lock while it waits; a kernel of torch.library.get_kernel() doesn't.
    call = getattr(torch.ops._C, name).default.redispatch

    def kernel(keys: Any, handle: int, data: torch.Tensor, *args: Any) -> Any:
        # Another type: a compiler traces the model, and nothing is sent.
        if type(data) is not torch.Tensor or handle not in groups:
            return call(keys.remove(_KEY), handle, data, *args)
        group = groups[handle]
        group.begin(name, data.shape)
        with waiting:
            result = call(keys.remove(_KEY), handle, data, *args)
        group.end()
        return result

    return kernel


def _timing(name: str, waiting: AbstractContextManager[None]) -> Kernel:
    call = getattr(torch.ops._C, name).default.redispatch

    def kernel(keys: Any, *args: Any) -> Any:
        with waiting:
            return call(keys.remove(_KEY), *args)

    return kernel
