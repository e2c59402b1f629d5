"""StepFuture: the result of a call whose replies are still coming."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures._base import RUNNING
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


class _MadeWhenNeeded:
    """An attribute of a future. It is made when somebody asks for it first."""

    def __init__(self, make: Callable[[StepFuture[Any]], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: StepFuture[Any], owner: type) -> Any:
        # If two threads make it at the same time, both get the one that is there first.
        return future.__dict__.setdefault(self._name, self._make(future))


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
        self._state = RUNNING
        self._done_callbacks: list[Callable[[StepFuture[T]], object]] = []
        self._engine = engine
        self._call = call

    # The base class makes them at once, which takes longer than a short call does.
    _condition = _MadeWhenNeeded(lambda future: threading.Condition())
    _waiters = _MadeWhenNeeded(lambda future: _Waiters(weakref.ref(future)))

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

    def running(self) -> bool:
        """Whether the outcome isn't known yet. Reads nothing."""
        return not self._call.done

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Calls `fn(self)` as soon as this is done, in the engine's reader thread. If it is done already,
        calls it at once in this thread."""

        def call_back(future: concurrent.futures.Future[T]) -> None:
            with logged("a future's callback"):
                fn(future)

        # The lock itself: a signal's handler may leave a Condition locked.
        with self._condition._lock:
            is_told_later = self.tell_later(self._done_callbacks, call_back)
        if not is_told_later:
            call_back(self)

    def tell_later(self, those: list[Any], one: object) -> bool:
        """With the future's lock. Adds a callback or a waiter to those who are told that the call is done.
        False, and does nothing, if it is done already."""
        call, reader = self._call, self._engine._reader
        if call.done:
            return False
        reader.start_reader()
        if those is not self._waiters:
            call.kept_future = self
        elif call.kept_future is None:  # whoever waits has the future
            call.kept_future = weakref.ref(self)
        list.append(those, one)
        # Check last: who ends the call after this line lets the reader thread tell this future.
        if call.done:
            reader.tell_later(self)
        return True

    def tell(self) -> None:
        """The reader thread, when the call is done. Tells those that wait, and calls the callbacks."""
        self._call.kept_future = None
        for waiter in _taken_from(self._waiters):
            self.tell_waiter(waiter)
        for call_back in _taken_from(self._done_callbacks):
            call_back(self)

    def tell_waiter(self, waiter: Any) -> None:
        """`waiter`: of `concurrent.futures.wait` or `as_completed`."""
        if self._call.error is None:
            waiter.add_result(self)
        else:
            waiter.add_exception(self)

    def _get_snapshot(self) -> tuple[bool, bool, T | None, BaseException | None]:
        """(done, cancelled, result, exception). asyncio asks for it from Python 3.14 on."""
        if not self._call.done:
            return False, False, None, None
        error = self.exception()
        return True, False, None if error is not None else self.result(), error

    def __repr__(self) -> str:
        call = self._call
        return (
            f"<StepFuture: {call.method}, step {call.step}, {'done' if call.done else 'running'}>"
        )

    def _drive(self, timeout: float | None) -> None:
        """Returns when the call is done: at its own deadline it fails with StepTimeout."""
        call = self._call
        if call.done:
            return
        limit = deadline_after(timeout)
        try:
            if not self._engine._reader.wait_for(call, limit):
                raise TimeoutError(f"{call.method} (step {call.step}) is not done yet")
        except ChannelError as error:
            if not call.done:
                self._engine._run_outcome.raise_cause(error)


def _taken_from(those: list[Any]) -> Iterator[Any]:
    """Takes one after the other out of the list. Another thread may take some, too."""
    while those:
        try:
            yield those.pop(0)
        except IndexError:
            return


class _Waiters(list[Any]):
    """What `concurrent.futures.wait` and `as_completed` append to, with the future's lock, to be told when
    it is done. They read no replies themselves, so this starts the reader thread.

    To them the future's state is always RUNNING. So they append in any case, and are told at once if the
    call is done. In this way no thread that ends a call needs the lock, under which user's code may run.
    """

    __slots__ = ("_reference",)

    def __init__(self, future: weakref.ref[StepFuture[Any]]) -> None:
        self._reference = future

    def append(self, waiter: Any) -> None:
        future = self._reference()
        assert future is not None, "whoever waits for it has it"
        if not future.tell_later(self, waiter):
            future.tell_waiter(waiter)

    def remove(self, waiter: Any) -> None:
        """The wait has ended."""
        with contextlib.suppress(ValueError):  # it has been told
            super().remove(waiter)
