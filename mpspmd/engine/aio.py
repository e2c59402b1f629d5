"""AwaitedCalls: the engine's calls for asyncio, which must never wait in the event loop's thread."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from mpspmd.engine.call import deadline_after
from mpspmd.threads import start_thread
from mpspmd.wire import ALL, Method, ReplyRanks

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)  # Any: what a method returns that is called by its name
else:
    from typing import TypeVar

    T = TypeVar("T")  # for typing.get_type_hints()


_Send: TypeAlias = Callable[[], "Future[Any] | None"]
_Unsent: TypeAlias = "SimpleQueue[tuple[Future[Future[Any] | None], _Send] | None]"


class AwaitedCalls:
    """`Engine` derives from it. Any event loop of the engine's process.

    One thread sends all of these calls, so that they keep their order: a call may have to wait until there
    is space in the ring. Replies come through the engine's reader thread.
    """

    call: Callable[..., Any]

    def __init__(self) -> None:
        self._unsent: _Unsent = SimpleQueue()
        self._has_sender = False
        self._starting_sender = threading.Lock()

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
        deadline = deadline_after(timeout)

        def send() -> Future[Any] | None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            future: Future[Any] | None = self.call(
                method, args, kwargs, reply_ranks=reply_ranks, timeout=left, non_block=True
            )
            return future

        self._start_sender()
        sending: Future[Future[Any] | None] = Future()
        self._unsent.put((sending, send))
        sent = await asyncio.wrap_future(sending)
        return None if sent is None else await asyncio.wrap_future(sent)

    def _start_sender(self) -> None:
        """The thread ends when nobody refers to the engine any more."""
        with self._starting_sender:
            if not self._has_sender:
                # No ThreadPoolExecutor: at exit Python would wait for a request that waits for space.
                start_thread(_send_all, self._unsent, name="mpspmd-sender")
                weakref.finalize(self, self._unsent.put, None)
                self._has_sender = True


def _send_all(unsent: _Unsent) -> None:
    while (item := unsent.get()) is not None:
        sending, send = item
        if sending.set_running_or_notify_cancel():
            try:
                sending.set_result(send())
            except BaseException as error:
                sending.set_exception(error)
        # They refer to the engine, and must not live on while this thread waits.
        del item, sending, send
