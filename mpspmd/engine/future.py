"""StepFuture: the result of a call whose replies are still coming."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import weakref
from collections.abc import Callable
from concurrent.futures._base import FINISHED, RUNNING
from typing import Any, Protocol, TypeVar

from mpspmd.engine.call import Call, deadline_after
from mpspmd.engine.outcome import RunOutcome
from mpspmd.engine.reader import Reader
from mpspmd.errors import ChannelError
from mpspmd.exceptions.fault import restore_cause
from mpspmd.exceptions.foreign import logged

T = TypeVar("T")


class _Engine(Protocol):
    """Futures refer to the engine, not to its parts: in a forked process the engine's parts are replaced by
    stubs that raise EngineClosed."""

    _reader: Reader
    _run_outcome: RunOutcome


class StepFuture(concurrent.futures.Future[T]):
    """The result of a call that was made with `non_block=True`. Any thread of the engine's process.

    `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future` take it as any other future:

        futures = [engine.execute_model(batch, non_block=True) for batch in batches]
        for future in concurrent.futures.as_completed(futures):
            print(future.result())

    As long as nobody uses those or adds a callback, no thread reads replies in the background: whoever asks
    for a result reads the replies, also those of others, and `done()` reads what has come. The first use of
    those starts the engine's reader thread. It calls the callbacks, one after the other, unless a thread
    that asks for the result does so first. A callback may use the engine, but must not wait for another
    future's callback.

    A future can't be cancelled: the ranks have the request already.
    """

    on_raise: Callable[[], None] | None = None
    """Called each time that `result` raises an error of the call, or `exception` returns it."""

    def __init__(self, engine: _Engine, call: Call) -> None:
        """The only future of `call`, which may be done already."""
        super().__init__()
        # As set_running_or_notify_cancel() does, which takes a lock that nobody else can want yet.
        self._state = RUNNING
        self._engine = engine
        self._call = call
        self._waiters = _Waiters(weakref.ref(self))
        call.future = weakref.ref(self)
        # Check last: a thread that finishes the call after this line tells the future itself.
        if call.done:
            self.note_end()

    def result(self, timeout: float | None = None) -> T:
        """Waits, and returns what the same call without `non_block` would return.

        Raises:
            TimeoutError: `timeout` seconds have passed; the call goes on, and can be asked again.
            StepTimeout: The call's own timeout has passed.
            RankError, RankDied, EngineClosed: As the call without `non_block` would.
        """
        self._drive(timeout)
        # The call has the outcome before the future has: no lock is needed.
        try:
            value: T = self._call.outcome()
            return value
        except Exception:
            if self.on_raise is not None:
                self.on_raise()
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits, and returns what `result()` would raise, or None.

        Raises:
            TimeoutError: `timeout` seconds have passed; the call goes on.
        """
        self._drive(timeout)
        error = self._call.error
        restore_cause(error)
        if error is not None and self.on_raise is not None:
            self.on_raise()
        return error

    def replies_so_far(self) -> list[Any]:
        """What each rank has replied to a call that has failed: a value, a RankError, or NO_REPLY.

        With `keeps_late` it grows while the replies of other calls are read.
        """
        return list(self._call.replies)

    def done(self) -> bool:
        """Whether the outcome is known. Reads what has come, and doesn't wait."""
        # Ask the call: a thread that has finished it may still be about to tell this future.
        if not self._call.done:
            # When the run has ended, nothing is to be done here: its failure ends every call.
            with contextlib.suppress(ChannelError):
                self._engine._reader.read_now()
        return self._call.done

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Calls `fn(self)` at once if this is done; else later, in another thread."""

        def call_back(future: concurrent.futures.Future[T]) -> None:
            with logged("a future's callback"):
                fn(future)

        if self._state != FINISHED:
            self._engine._reader.start_reader()
        super().add_done_callback(call_back)
        if self._state != FINISHED:
            self.wait_to_be_told()

    # For the reader.

    def wait_to_be_told(self) -> None:
        """Call it when somebody has begun to wait for the end: a callback or a waiter."""
        call = self._call
        call.kept_future = self
        # Check last: whoever ends the call after this line has the reader thread tell this future.
        if call.done:
            self._engine._reader.tell_later(call)

    def note_end(self) -> bool:
        """Any thread: the call is done. False, and does nothing, if somebody waits to be told."""
        # This lock is C code: a signal's handler can't raise before the block that unlocks it.
        with self._condition._lock:  # type: ignore[attr-defined]
            if self._waiters or self._done_callbacks:  # type: ignore[attr-defined]
                return False
            if self._call.error is None:
                self._result = self._call.outcome()
            self._exception = self._call.error
            self._state = FINISHED
        return True

    def tell(self) -> None:
        """The reader thread: the call is done. Tells those that wait, and calls the callbacks."""
        error = self._call.error
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # they have been told
            if error is None:
                self.set_result(self._call.outcome())
            else:
                self.set_exception(error)

    def _invoke_callbacks(self) -> None:
        """As in the base class. If several threads come here, only one of them calls each callback."""
        callbacks = self._done_callbacks  # type: ignore[attr-defined]
        while callbacks:
            try:
                call_back = callbacks.pop(0)
            except IndexError:  # another thread has taken the last one
                return
            call_back(self)

    def _drive(self, timeout: float | None) -> None:
        """Returns when the call is done: at its own deadline it fails with StepTimeout."""
        if not self._call.done:
            self._wait(timeout)
        if self._done_callbacks:  # type: ignore[attr-defined]
            # The reader thread is about to do this, but it would have to wake up first.
            self._invoke_callbacks()
            self.note_end()

    def _wait(self, timeout: float | None) -> None:
        call = self._call
        limit = deadline_after(timeout)
        try:
            self._engine._reader.wait_for(call, limit)
        except ChannelError as error:
            if not call.done:
                self._engine._run_outcome.raise_cause(error)
        except TimeoutError:
            if limit is None or time.monotonic() < limit:
                raise  # A signal's handler has raised it.
            raise TimeoutError(f"{call.method} (step {call.step}) is not done yet") from None


class _Waiters(list[Any]):
    """What `concurrent.futures.wait` and `as_completed` append to, to be told when a future is done. They
    read no replies themselves, so this starts the reader thread."""

    __slots__ = ("_future",)

    def __init__(self, future: weakref.ref[StepFuture[Any]]) -> None:
        self._future = future

    def append(self, waiter: Any) -> None:
        future = self._future()
        assert future is not None, "whoever waits for it has it"
        if future._state != FINISHED:
            future._engine._reader.start_reader()
        super().append(waiter)
        if future._state != FINISHED:
            future.wait_to_be_told()

    def remove(self, waiter: Any) -> None:
        """A wait has ended early. A future that nobody has any more must not be kept for it."""
        super().remove(waiter)
        future = self._future()
        if future is not None and not (self or future._done_callbacks):  # type: ignore[attr-defined]
            future._call.kept_future = None
