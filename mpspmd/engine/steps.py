"""StepCalls: the calls of a program that drives the ranks step by step."""

from __future__ import annotations

from typing import Any, Literal

from mpspmd.engine.call import Call, deadline_after
from mpspmd.engine.calls import Calls
from mpspmd.engine.future import StepFuture
from mpspmd.errors import ConfigError
from mpspmd.wire import ALL, Method, ReplyRanks


class StepCalls:
    """`engine.steps`. Any thread of the engine's process.

    One step may be one request, whose outcome is asked for later:

        call = engine.steps.send("execute_model", (batch,), reply_ranks=0)
        ...
        engine.steps.outcome(call)

    or several, of which only the last one has a reply:

        step = engine.steps.send("execute_model", (batch,))  # returns LATER on the ranks
        engine.steps.call("sample", ends=step)
    """

    def __init__(self, engine: Calls) -> None:
        self._engine = engine

    def send(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        *,
        reply_ranks: int | Literal["all"] = ALL,
        timeout: float | None = None,
    ) -> Call:
        """Sends a request to all ranks, and waits for no reply.

        Ask for its outcome by `outcome()` or `future()`, once. If the method returns `LATER` on the ranks,
        this request begins a step and has no reply: a later call whose `ends` is the returned one has the
        step's. What the method raises on any rank is then the outcome of all calls of the step.
        `timeout` is in seconds from now, sending included.

        Raises:
            ConfigError: There is no such rank, or `timeout` is no number of seconds.
            EncodeError: The arguments can't be sent; no rank runs the request.
            StepTimeout: There was no space for the request; no rank runs it.
            RankError, RankDied, EngineClosed: The engine has failed before, or while this was sent.
        """
        if reply_ranks is None:
            raise ConfigError(
                "reply_ranks=None: must be a rank or 'all', because send() returns a call"
            )
        return self._send(method, args, reply_ranks, timeout)

    def outcome(self, call: Call) -> Any:
        """Waits for the call, and returns or raises what `Engine.call` would."""
        return self._engine._outcome(call)

    def future(self, call: Call) -> StepFuture[Any]:
        """The future of a call. Once for each call."""
        return StepFuture(self._engine, call)

    def call(
        self,
        method: Method,
        args: tuple[Any, ...] = (),
        *,
        reply_ranks: ReplyRanks = ALL,
        timeout: float | None = None,
        non_block: bool = False,
        within: Call | None = None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Any:
        """As `Engine.call`, for a call that may belong to a step.

        The call fails when the step does: `within` is what `send()` returned for the step's first request,
        and `ends` is the same for the step's last call. With `keeps_late` the future of a call that has
        failed goes on collecting what the other ranks reply; see `StepFuture.replies_so_far`.
        """
        engine = self._engine
        call = self._send(method, args, reply_ranks, timeout, ends, keeps_late)
        if (first := ends or within) is not None:
            engine._reader.link(call, first)
        if reply_ranks is None:
            return None
        return StepFuture(engine, call) if non_block else engine._outcome(call)

    def forget(self, step: Call) -> None:
        """Gives up a step that will have no last call. Its replies, if any come, are dropped."""
        self._engine._reader.finish(step)

    def send_anew(self) -> None:
        """The next step goes to the ranks whole, and builds on nothing that they hold."""
        self._engine._sending.send_anew()

    def _send(
        self,
        method: Method,
        args: tuple[Any, ...],
        reply_ranks: ReplyRanks,
        timeout: float | None,
        ends: Call | None = None,
        keeps_late: bool = False,
    ) -> Call:
        engine = self._engine
        if reply_ranks != ALL:
            engine._check_reply_ranks(reply_ranks)
        deadline = deadline_after(timeout)
        return engine._sending.send(method, args, {}, reply_ranks, deadline, ends, keeps_late)
