"""A worker extension class: its methods are called by `collective_rpc`."""

from __future__ import annotations

from typing import Any


class Extension:
    rank: int

    def where_am_i(self, greeting: str = "rank") -> str:
        return f"{greeting} {self.rank}"

    def fail_on(self, rank: int) -> int:
        if self.rank == rank:
            raise ValueError(f"only on rank {rank}")
        return self.rank

    def add(self: Any, a: int, b: int = 0) -> int:
        return a + b + int(self.rank)

    def break_next_step(self: Any) -> None:
        """The next step raises on every rank, before it waits for the others."""
        import torch

        if not torch.accelerator.is_available():
            # vLLM's retry waits for an accelerator, which a CPU isn't.
            torch.accelerator.synchronize = lambda *_: None
        runner, execute = self.model_runner, self.model_runner.execute_model

        def fail(*args: Any, **kwargs: Any) -> Any:
            runner.execute_model = execute
            raise RuntimeError("this step was told to fail")

        runner.execute_model = fail
