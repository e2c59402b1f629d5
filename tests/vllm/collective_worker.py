"""A worker whose ranks call vLLM's collectives in shared memory, without a model."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist

import mpspmd


class Collecting(mpspmd.Worker):
    """Its methods are called on two ranks."""

    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        from vllm.platforms import current_platform

        from mpspmd.vllm.collectives import watch_collectives

        os.environ["VLLM_DIST_IDENT"] = ident = f"mpspmd-test-{os.getppid()}"
        current_platform.import_kernels()
        ctx.init_process_group("gloo")
        self._earlier = self._join(f"{ident}-ep:0-[0-1]-cpushm")
        self._watched = watch_collectives(ctx.collective())
        self._handle = self._join(f"{ident}-tp:0-[0-1]-cpushm")
        self._pipeline = self._join(f"{ident}-pp:0-[0-1]-cpushm")

    def _join(self, name: str) -> int:
        handle: int = torch.ops._C.init_shm_manager(name, 2, self.ctx.rank, 1)
        dist.barrier()
        torch.ops._C.join_shm_manager(handle, name)
        dist.barrier()
        return handle

    def execute_model(self, slow_rank: int, extra_s: float) -> list[float]:
        time.sleep(0.002 + (extra_s if self.ctx.rank == slow_rank else 0))
        return self.all_reduce()

    def all_reduce(self) -> list[float]:
        return self._all_reduce(self._handle)

    def all_reduce_earlier(self) -> list[float]:
        """In a group that was made before anybody watched."""
        return self._all_reduce(self._earlier)

    def _all_reduce(self, handle: int) -> list[float]:
        data = torch.full((2, 64), float(self.ctx.rank + 1))
        with torch.inference_mode():
            torch.ops._C.shm_allreduce(handle, data)
        return [float(data.min()), float(data.max())]

    def compiled_all_reduce(self) -> list[float]:
        handle = self._handle

        @torch.compile(backend="aot_eager", fullgraph=True, dynamic=True)
        def compute(data: torch.Tensor) -> torch.Tensor:
            data = data * 2
            torch.ops._C.shm_allreduce(handle, data)
            return data + 1

        data = compute(torch.full((2, 64), float(self.ctx.rank + 1)))
        return [float(data.min()), float(data.max())]

    def all_gather(self) -> list[float]:
        gathered = torch.zeros(2, 64)
        torch.ops._C.shm_all_gather(
            self._handle, torch.full((1, 64), float(self.ctx.rank)), gathered
        )
        return gathered[:, 0].tolist()

    def gather(self) -> list[float] | None:
        parts = [torch.zeros(1, 64) for _ in range(2)] if self.ctx.rank == 0 else None
        torch.ops._C.shm_gather(self._handle, torch.full((1, 64), float(self.ctx.rank)), parts, 0)
        return None if parts is None else [float(part[0, 0]) for part in parts]

    def pass_on(self) -> list[float]:
        """Rank 0 sends, 0.2 s later than rank 1 waits."""
        if self.ctx.rank == 0:
            time.sleep(0.2)
            torch.ops._C.shm_send_tensor_list(self._pipeline, [torch.arange(64.0)], 1)
            return []
        (received,) = torch.ops._C.shm_recv_tensor_list(self._pipeline, 0)
        return [float(received[0]), float(received[-1])]

    def all_reduce_without(self, rank: int) -> None:
        if self.ctx.rank != rank:
            self.all_reduce()

    def shutdown(self) -> None:
        dist.destroy_process_group()
