"""Waiting: how the callers of one engine wait for replies."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from mpspmd.engine.call import Call
from mpspmd.engine.outcome import RunOutcome
from mpspmd.engine.reader import Reader
from mpspmd.errors import ChannelError
from mpspmd.wire import ALL


class Waiting:
    """`Engine` derives from it. Any thread.

    Futures refer to the engine, not to its parts: in a forked process the engine's parts are replaced by
    stubs that raise EngineClosed.
    """

    _reader: Reader
    _run_outcome: RunOutcome

    def _outcome(self, call: Call) -> Any:
        """Waits until the call is done, and returns its value or raises its error."""
        if not call.done:
            try:
                self._reader.wait_for(call, None)
            except ChannelError as error:
                if not call.done:
                    self._run_outcome.raise_cause(error)
        if call.error is None and call.ranks == ALL:
            return call.replies  # as call.outcome(), which takes longer
        return call.outcome()

    def _wait_for(self, call: Call, timeout: float | None) -> None:
        """Returns when the call is done; it is done by its own deadline, with a StepTimeout as its error.

        Raises:
            TimeoutError: `timeout` seconds have passed; the call goes on.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        try:
            self._reader.wait_for(call, limit)
        except ChannelError as error:
            if not call.done:
                self._run_outcome.raise_cause(error)
        except TimeoutError:
            if limit is None or time.monotonic() < limit:
                raise  # A signal's handler has raised it.
            raise TimeoutError(f"{call.method} (step {call.step}) is not done yet") from None

    def _read_replies(self) -> None:
        """Takes the replies that have come, without waiting."""
        # The run has ended: its failure ends every call, so nothing is to be done here.
        with contextlib.suppress(ChannelError):
            self._reader.read_now()
