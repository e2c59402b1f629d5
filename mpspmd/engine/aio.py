"""AwaitedCalls: the engine's calls for asyncio, which must never wait in the event loop's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mpspmd.threads import block_signals
from mpspmd.wire import ALL, Method, ReplyRanks

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)  # Any: what a method returns that is called by its name
else:
    from typing import TypeVar

    T = TypeVar("T")  # for typing.get_type_hints()


class AwaitedCalls:
    """`Engine` derives from it. Any event loop of the engine's process.

    One thread sends all of these calls, so that they keep their order: a call may have to wait until there
    is space in the ring. Replies come through the engine's reader thread.
    """

    call: Callable[..., Any]

    def __init__(self) -> None:
        self._sender = ThreadPoolExecutor(1, "mpspmd-sender", block_signals)

    async def execute_model_async(
        self, *args: Any, timeout: float | None = None, reply_rank: int = 0, **kwargs: Any
    ) -> Any:
        """As `execute_model`, for asyncio: the event loop goes on.

            outputs = await asyncio.gather(*map(engine.execute_model_async, batches))

        Calls reach the ranks in the order in which they are first awaited, or made into tasks. If a call is
        cancelled that has not been sent yet, no rank runs it; if it has been sent, its reply is dropped.
        """
        return await self.call_async(
            "execute_model", args, kwargs, reply_ranks=reply_rank, timeout=timeout
        )

    async def collective_rpc_async(
        self,
        method: str | Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> list[T]:
        """As `collective_rpc`, for asyncio; see `execute_model_async`."""
        replies: list[T] = await self.call_async(method, args, kwargs, timeout=timeout)
        return replies

    async def call_async(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: ReplyRanks = ALL,
        timeout: float | None = None,
    ) -> Any:
        """As `call`, for asyncio; see `execute_model_async`."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> Future[Any] | None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            future: Future[Any] | None = self.call(
                method, args, kwargs, reply_ranks=reply_ranks, timeout=left, non_block=True
            )
            return future

        sent = await asyncio.get_running_loop().run_in_executor(self._sender, send)
        return None if sent is None else await asyncio.wrap_future(sent)

    def _send_no_more(self) -> None:
        """Doesn't wait: a call that is being sent ends with the run."""
        self._sender.shutdown(wait=False, cancel_futures=True)
