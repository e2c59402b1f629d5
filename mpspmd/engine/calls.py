"""Calls: what an engine's user asks of the ranks, and how its outcome is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Literal

from mpspmd.engine.aio import AwaitedCalls
from mpspmd.engine.call import Call, StepFuture
from mpspmd.engine.failures import Failures
from mpspmd.engine.replies import Replies
from mpspmd.engine.sender import Sender
from mpspmd.errors import ChannelError, ConfigError
from mpspmd.wire import ALL, ReplyRanks


class Calls(AwaitedCalls):
    """`Engine` derives from it, and makes its parts."""

    _world_size: int
    _sending: Sender
    _replies: Replies
    _failures: Failures

    def execute_model(
        self, *args: Any, non_block: bool = False, timeout: float | None = None, reply_rank: int = 0
    ) -> Any:
        """Calls every worker's `execute_model(*args)`; the reply of one rank, or a future of it.

        If it fails on any rank, the engine has failed.
        """
        return self.call(
            "execute_model",
            args,
            reply_ranks=reply_rank,
            timeout=timeout,
            non_block=non_block,
        )

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        non_block: bool = False,
    ) -> Any:
        """Calls a method on every worker; the list of all replies in rank order, or a future of it."""
        return self.call(method, args, kwargs, timeout=timeout, non_block=non_block)

    def call(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        reply_ranks: ReplyRanks = ALL,
        timeout: float | None = None,
        non_block: bool = False,
        within: Call | None = None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Any:
        """Sends one request to all ranks.

        `method` is a worker's method, or a callable that gets the worker as its first argument (sent by
        value: a lambda will do). `timeout` is in seconds from now, sending included; after it StepTimeout,
        and the engine stays usable. With `reply_ranks=None` nothing is waited for, and None is returned.
        `within` is the step, made by begin(), that this call belongs to; `ends` the same for its last call.
        With `keeps_late` the future of a failed call goes on collecting what the other ranks reply.

        EngineClosed, RankError, RankDied, UnknownMethod, EncodeError, StepTimeout.
        """
        if reply_ranks != ALL:
            self._check_reply_ranks(reply_ranks)
        deadline = None if timeout is None else time.monotonic() + timeout
        future = StepFuture(self) if non_block and reply_ranks is not None else None
        call = self._sending.send(
            method, args, kwargs or {}, reply_ranks, deadline, future, ends, keeps_late
        )
        if (first := ends or within) is not None:
            self._replies.link(call, first)
        if reply_ranks is None:
            return None
        return self.outcome(call) if future is None else future

    def send(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...] = (),
        *,
        reply_ranks: int | Literal["all"] = ALL,
        timeout: float | None = None,
    ) -> Call:
        """As call(), and doesn't wait: what comes of it is to be asked for, by outcome() or by future().

        A future is known sooner with call(non_block=True); this costs less where none is needed.
        """
        self._check_reply_ranks(reply_ranks)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._sending.send(method, args, {}, reply_ranks, deadline)

    def outcome(self, call: Call) -> Any:
        """Waits for it. What call() returns, or raises."""
        if not call.done:
            self.wait_for(call)
        return call.outcome()

    def future(self, call: Call) -> StepFuture:
        """Of what call() returns, or raises. Once for each call."""
        future = StepFuture(self)
        future.follow(call)
        return future

    def begin(
        self,
        method: str | Callable[..., Any],
        args: tuple[Any, ...] = (),
        *,
        reply_ranks: ReplyRanks = ALL,
    ) -> Call:
        """Begins a step of several calls, and doesn't wait.

        On the ranks the method returns `LATER`, which isn't replied; a later call of the step is, whose
        `ends` is what this returns. If the method raises on any rank, all calls of the step fail with that.
        """
        self._check_reply_ranks(reply_ranks)
        return self._sending.send(method, args, {}, reply_ranks, None)

    def forget(self, step: Call) -> None:
        """Gives up a step made by begin(), which will have no last call."""
        self._replies.finish(step)

    def send_anew(self) -> None:
        """The next step goes to the ranks whole, and builds on nothing that they hold. Any thread."""
        self._sending.send_anew()

    def _check_reply_ranks(self, ranks: ReplyRanks) -> None:
        if ranks is None or ranks == ALL:
            return
        if not isinstance(ranks, int) or not 0 <= ranks < self._world_size:
            raise ConfigError(
                f"reply_ranks={ranks!r}: must be a rank from 0 to {self._world_size - 1}, "
                f"{ALL!r} or None"
            )

    def wait_for(self, call: Call, timeout: float | None = None) -> None:
        """Until the call is done: by its own deadline, if it has one, with StepTimeout as its outcome.

        TimeoutError after `timeout` seconds; the call goes on.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        try:
            self._replies.wait_for(call, limit)
        except ChannelError as error:
            if not call.done:
                self._failures.raise_cause(error)
        except TimeoutError:
            raise TimeoutError(f"{call.method} (step {call.step}) is not done yet") from None

    def read_replies(self) -> None:
        """Takes the replies that have come, without waiting."""
        # Whoever waits is told by the failure itself.
        with contextlib.suppress(ChannelError):
            self._replies.read_now()

    def start_reader(self) -> None:
        """From now on a thread reads replies whenever any are awaited, so that callbacks are called."""
        self._replies.start_reader()
