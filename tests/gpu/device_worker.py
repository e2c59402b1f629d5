"""Workers that use a GPU as a model does. Where there is none, they do the same on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mpspmd
from mpspmd.rank.worker import LATER

SIZE = 1024
_MIB = 1 << 20


@dataclass
class Pending:
    """A result that the GPU has computed when its event has come."""

    host: torch.Tensor
    event: Any


class DeviceWorker(mpspmd.Worker):
    """`execute_model` returns before its result is computed, and the reply thread waits for it.

    `forward` and `sample` are one step, whose reply is that of `sample`. Ranks may share a GPU.
    """

    reply_thread = True

    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        self.device = device_of(ctx)
        self.buffer = torch.zeros(
            256 * _MIB if on_gpu() else _MIB, dtype=torch.uint8, device=self.device
        )
        self._input = torch.zeros(SIZE, device=self.device)
        self._output = torch.zeros(SIZE, device=self.device)
        self._replay = captured(self._compute)
        self._streams = [torch.cuda.Stream() for _ in range(2)] if on_gpu() else []

    def start_reply_thread(self) -> None:
        if on_gpu():
            torch.cuda.set_device(self.device)

    def execute_model(self, number: int) -> Pending:
        """Every fourth one takes long, and the streams don't wait for each other."""
        host = host_buffer(torch.zeros(1))
        if not self._streams:
            host.fill_(number)
            return Pending(host, None)
        stream = self._streams[number % 2]
        with torch.cuda.stream(stream):
            if number % 4 == 0:
                matrix = torch.rand(4096, 4096, device=self.device)
                for _ in range(20):
                    matrix = torch.nn.functional.normalize(matrix @ matrix)
            host.copy_(torch.full((1,), float(number), device=self.device), non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
        return Pending(host, event)

    def finish_reply(self, result: Any) -> Any:
        if not isinstance(result, Pending):
            return result
        if result.event is not None:
            result.event.synchronize()
        return float(result.host)

    def _compute(self) -> None:
        torch.mul(self._input, 3, out=self._output)
        self._output.add_(self.ctx.rank)

    def forward(self, numbers: torch.Tensor) -> Any:
        self._input.copy_(numbers, non_blocking=True)
        self._replay()
        return LATER

    def sample(self) -> torch.Tensor:
        return self._output.cpu()

    def device_name(self) -> str:
        return str(self._output.device)

    def output_on_device(self) -> torch.Tensor:
        return self._output

    def double(self, numbers: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """There and back by memory that the GPU reads and writes itself; and whether it is pinned."""
        there, back = host_buffer(numbers), host_buffer(numbers)
        there.copy_(numbers)
        back.copy_(there.to(self.device, non_blocking=True) * 2, non_blocking=True)
        synchronize()
        return back, back.is_pinned()

    def sum_over_ranks(self) -> tuple[float, str]:
        import torch.distributed as dist

        self.ctx.init_process_group()
        numbers = torch.tensor([self.ctx.rank + 1.0], device=self.ctx.device)
        dist.all_reduce(numbers)
        backend = dist.get_backend()
        dist.destroy_process_group()
        return float(numbers), backend

    def compute_for_ever(self, begun: str) -> None:
        """Makes the files `begun`-RANK when it computes."""
        matrix = torch.rand(2048, 2048, device=self.device) if on_gpu() else torch.rand(256, 256)
        while True:
            for _ in range(50):
                matrix = torch.nn.functional.normalize(matrix @ matrix)
            Path(f"{begun}-{self.ctx.rank}").touch()
            synchronize()


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device_of(ctx: mpspmd.RankContext) -> torch.device:
    """A GPU, which the rank may share with others, and makes its current one; else the CPU."""
    if not on_gpu():
        return torch.device("cpu")
    device = torch.device("cuda", ctx.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def captured(compute: Callable[[], None]) -> Callable[[], None]:
    """Replays what a CUDA graph has captured. On the CPU it computes."""
    if not on_gpu():
        return compute
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        compute()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph.replay


def host_buffer(like: torch.Tensor) -> torch.Tensor:
    """As large on the host; pinned where there is a GPU."""
    return torch.empty_like(like, device="cpu", pin_memory=on_gpu())


def synchronize() -> None:
    if on_gpu():
        torch.cuda.synchronize()
