"""Calls: what an engine's user asks of the ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from mpspmd.engine.aio import AwaitedCalls, T
from mpspmd.engine.call import Call, deadline_after
from mpspmd.engine.future import StepFuture
from mpspmd.engine.outcome import RunOutcome
from mpspmd.engine.reader import Reader
from mpspmd.engine.sender import Sender
from mpspmd.errors import ChannelError, ConfigError
from mpspmd.wire import ALL, Method, ReplyRanks

_NO_KWARGS: dict[str, Any] = {}
"""Shared by all calls, because they only read it."""


class Calls(AwaitedCalls):
    """`Engine` derives from it, and makes what it uses. Any thread of the process that made the engine."""

    _world_size: int
    _sending: Sender
    _reader: Reader
    _run_outcome: RunOutcome

    @overload
    def execute_model(
        self,
        *args: Any,
        non_block: Literal[True],
        timeout: float | None = None,
        reply_rank: int = 0,
        **kwargs: Any,
    ) -> StepFuture[Any]: ...

    @overload
    def execute_model(
        self,
        *args: Any,
        non_block: bool = False,
        timeout: float | None = None,
        reply_rank: int = 0,
        **kwargs: Any,
    ) -> Any: ...

    def execute_model(
        self,
        *args: Any,
        non_block: bool = False,
        timeout: float | None = None,
        reply_rank: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Calls every worker's `execute_model(*args, **kwargs)`, and returns the reply of one rank.

            tokens = engine.execute_model([1, 2, 3], temperature=0.5)

        If it fails on any rank, the engine has failed. The rest is as for `call`, which also takes
        arguments with the names of the parameters here.
        """
        # Not self.call: a class that derives from this one may override it.
        return Calls.call(
            self,
            "execute_model",
            args,
            kwargs,
            reply_ranks=reply_rank,
            timeout=timeout,
            non_block=non_block,
        )

    @overload
    def collective_rpc(
        self,
        method: str | Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        non_block: Literal[False] = False,
    ) -> list[T]: ...

    @overload
    def collective_rpc(
        self,
        method: str | Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        non_block: Literal[True],
    ) -> StepFuture[list[T]]: ...

    @overload
    def collective_rpc(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        non_block: bool,
    ) -> Any: ...

    def collective_rpc(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        non_block: bool = False,
    ) -> Any:
        """Calls a method on every worker, and returns the list of all replies in rank order.

            engine.collective_rpc("add_lora", ("name",), timeout=5)
            engine.collective_rpc(lambda worker: worker.ctx.rank)  # [0, 1]

        The rest is as for `call`.
        """
        return Calls.call(self, method, args, kwargs, timeout=timeout, non_block=non_block)

    @overload
    def call(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: None,
        timeout: float | None = None,
        non_block: bool = False,
    ) -> None: ...

    @overload
    def call(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: int | Literal["all"] = ALL,
        timeout: float | None = None,
        non_block: Literal[True],
    ) -> StepFuture[Any]: ...

    @overload
    def call(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: ReplyRanks = ALL,
        timeout: float | None = None,
        non_block: bool = False,
    ) -> Any: ...

    def call(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: ReplyRanks = ALL,
        timeout: float | None = None,
        non_block: bool = False,
    ) -> Any:
        """Sends one request to all ranks, and returns what those reply that are asked to.

            engine.call("save", ("/tmp/model",), reply_ranks=1, timeout=60)
            future = engine.call("evaluate", (batch,), non_block=True)

        Args:
            method: The name of a worker's method; or a callable that gets the worker as its first argument.
                A callable is sent by value, so that a lambda will do.
            args: Anything that can be pickled. Arrays and tensors on the CPU travel beside the pickle.
            reply_ranks: `"all"` gives a list of all replies in rank order, a rank gives its reply, and with
                None nothing is waited for: None is returned, also with `non_block`.
            timeout: In seconds from now, sending included. After it the engine stays usable, and late
                replies are dropped.
            non_block: Returns a `StepFuture` of the outcome as soon as the request is in the ring.

        Raises:
            ConfigError: An argument has a value that can't be used, such as a rank that the run hasn't.
            EncodeError: The arguments can't be sent; no rank runs the request.
            UnknownMethod: A worker has no such method.
            RankError: The method raised on some rank. After `execute_model` the engine has failed.
            DecodeError: A reply can't be rebuilt in this process.
            StepTimeout: `timeout` has passed.
            RankDied: A rank's process is gone; the engine has failed.
            EngineClosed: The engine has been shut down, or belongs to another process.
        """
        if reply_ranks != ALL:
            self._check_reply_ranks(reply_ranks)
        deadline = deadline_after(timeout)
        call = self._sending.send(method, args, kwargs or _NO_KWARGS, reply_ranks, deadline)
        if reply_ranks is None:
            return None
        return StepFuture(self, call) if non_block else self._outcome(call)

    def _outcome(self, call: Call) -> Any:
        """Waits until the call is done, and returns its value or raises its error."""
        try:
            # wait_for() begins with this too. Here it saves a call in Python.
            if not call.done and not self._reader.read_for(call, None, False):
                self._reader.wait_for(call, None)
        except ChannelError as error:
            if not call.done:
                self._run_outcome.raise_cause(error)
        return call.outcome()

    def _check_reply_ranks(self, ranks: ReplyRanks) -> None:
        if ranks is None or ranks == ALL:
            return
        if not isinstance(ranks, int) or not 0 <= ranks < self._world_size:
            raise ConfigError(
                f"reply_ranks={ranks!r}: must be a rank from 0 to {self._world_size - 1}, "
                f"{ALL!r} or None"
            )
