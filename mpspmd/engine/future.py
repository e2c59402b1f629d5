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

_IN_USE_S = 0.01
"""How long the reader thread waits for a future's lock before it sees to others first."""


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
    for a result reads the replies, also those of others, and `done()` reads what has come. The first wait
    of that kind, or the first callback, starts the engine's reader thread. It ends those waits, and calls
    all callbacks, one after the other. So a callback may call the engine and ask other futures for their
    results, but must not wait for another callback, nor in `concurrent.futures.wait` and the like.

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
        """Calls `fn(self)` in the engine's reader thread as soon as this is done, or at once if it was done
        before."""

        def call_back(future: concurrent.futures.Future[T]) -> None:
            with logged("a future's callback"):
                fn(future)

        if self._call.done:
            self.note_end()
        else:
            self._engine._reader.start_reader()
        # The lock itself: its `with` is safe from signals' handlers, and that of the Condition isn't.
        with self._lock:
            must_wait = self._state != FINISHED
            if must_wait:
                self._done_callbacks.append(call_back)  # type: ignore[attr-defined]
        if must_wait:
            self.wait_to_be_told()
        else:
            call_back(self)

    # For the reader.

    def wait_to_be_told(self) -> None:
        """Call it when somebody has begun to wait for the end: a callback or a waiter."""
        call = self._call
        call.kept_future = self
        # Check last: whoever ends the call after this line has the reader thread tell this future.
        if call.done:
            self._engine._reader.tell_later(call)

    def note_end(self) -> bool:
        """Any thread: the call is done. Returns whether the reader thread must tell those that wait.

        Does nothing while another thread looks at this future or begins to wait: that thread sees that the
        call is done. Who ends a call must not wait for the lock, under which user's code may run.
        """
        error, value = self._outcome()
        lock = self._lock
        if lock._is_owned():  # this is a finalizer or a signal's handler
            return False
        try:
            if not lock.acquire(blocking=False):
                return False
            if self._waiters or self._done_callbacks:  # type: ignore[attr-defined]
                return True
            self._exception, self._result = error, value
            self._state = FINISHED
            return False
        finally:
            # A signal's handler may have raised before acquire() or after it.
            try:  # noqa: SIM105 - contextlib.suppress() is Python code, in which a handler may raise
                lock.release()
            except RuntimeError:
                pass

    def tell(self) -> bool:
        """The reader thread: the call is done. Tells those that wait, and calls the callbacks. False, and
        does nothing, if the future is in use for long."""
        error, value = self._outcome()
        if not self._lock.acquire(timeout=_IN_USE_S):
            return False
        try:
            if self._state == FINISHED:
                return True
            self._exception, self._result = error, value
            self._state = FINISHED
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
        finally:
            self._lock.release()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    @property
    def _lock(self) -> Any:
        """What `concurrent.futures` holds while it looks at futures or begins to wait for them."""
        return self._condition._lock  # type: ignore[attr-defined]

    def _outcome(self) -> tuple[BaseException | None, Any]:
        error = self._call.error
        return error, None if error is not None else self._call.outcome()

    def _drive(self, timeout: float | None) -> None:
        """Returns when the call is done: at its own deadline it fails with StepTimeout."""
        call = self._call
        if call.done:
            return
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
        """A wait has ended, perhaps before the call. A future that nobody has any more isn't kept then."""
        super().remove(waiter)
        future = self._future()
        if future is not None and not (self or future._done_callbacks):  # type: ignore[attr-defined]
            future._call.kept_future = None
