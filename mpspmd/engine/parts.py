"""Parts: what an engine's calls use, so that they need not know Engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from mpspmd.engine.call import Call
from mpspmd.engine.future import StepFuture
from mpspmd.engine.sender import Sender
from mpspmd.engine.waiting import Waiting
from mpspmd.errors import ConfigError
from mpspmd.wire import ALL, ReplyRanks

Method: TypeAlias = str | Callable[..., Any]


class Parts(Waiting):
    """`Engine` derives from it, and makes the parts."""

    _world_size: int
    _sending: Sender

    def _call(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
        timeout: float | None,
        non_block: bool,
        within: Call | None = None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Any:
        """What `Engine.call` and `StepCalls.call` do."""
        if reply_ranks != ALL:
            self._check_reply_ranks(reply_ranks)
        deadline = None if timeout is None else time.monotonic() + timeout
        future: StepFuture[Any] | None = None
        if non_block and reply_ranks is not None:
            future = StepFuture(self)
        call = self._sending.send(
            method, args, kwargs, reply_ranks, deadline, future, ends, keeps_late
        )
        if (first := ends or within) is not None:
            self._reader.link(call, first)
        if reply_ranks is None:
            return None
        return self._outcome(call) if future is None else future

    def _check_reply_ranks(self, ranks: ReplyRanks) -> None:
        if ranks is None or ranks == ALL:
            return
        if not isinstance(ranks, int) or not 0 <= ranks < self._world_size:
            raise ConfigError(
                f"reply_ranks={ranks!r}: must be a rank from 0 to {self._world_size - 1}, "
                f"{ALL!r} or None"
            )
