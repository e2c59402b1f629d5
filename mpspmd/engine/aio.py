"""AwaitedCalls: the engine's calls for asyncio, which must never wait in the event loop's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mpspmd.wire import ALL, ReplyRanks


class AwaitedCalls:
    """Sends in one thread, so that calls keep their order: there may be no space in the ring.

    Replies come through the engine's reader thread. `Engine` derives from it.
    """

    call: Callable[..., Any]

    def __init__(self) -> None:
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mpspmd-sender")

    async def execute_model_async(
        self, *args: Any, timeout: float | None = None, reply_rank: int = 0
    ) -> Any:
        """As `execute_model`, for asyncio: the event loop goes on.

        Calls reach the ranks in the order in which they are first awaited, or made into tasks. A call
        that is cancelled has been sent or not; if it has, its reply is dropped.
        """
        return await self._call_async("execute_model", args, {}, reply_rank, timeout)

    async def collective_rpc_async(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """As `collective_rpc`, for asyncio; see `execute_model_async`."""
        return await self._call_async(method, args, kwargs or {}, ALL, timeout)

    async def _call_async(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
        timeout: float | None,
    ) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> Future[Any]:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            future: Future[Any] = self.call(
                method, args, kwargs, reply_ranks=reply_ranks, timeout=left, non_block=True
            )
            return future

        sent = await asyncio.get_running_loop().run_in_executor(self._sender, send)
        return await asyncio.wrap_future(sent)

    def _send_no_more(self) -> None:
        """Doesn't wait: a call that is being sent ends with the run."""
        self._sender.shutdown(wait=False, cancel_futures=True)
