"""The rank: the process that every rank runs, 0 too, and its loop."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

from mpspmd._native import (
    PHASE_DECODING,
    PHASE_REPLYING,
    PHASE_RUNNING,
    PHASE_WAITING,
    Inbox,
    pack,
)
from mpspmd.codec.objects import decode
from mpspmd.codec.steps import RankEnd, StepCodec
from mpspmd.control.messages import Fault, Goodbye, Hello, Leaving, Ready
from mpspmd.control.plane import control_address
from mpspmd.errors import ChannelClosed, ChannelPoisoned, ConfigError, DecodeError, text_of
from mpspmd.notice import notice
from mpspmd.request import ExecuteModelRequest, RemoteException
from mpspmd.runtime.attaching import leave_what_is_attached
from mpspmd.runtime.control_thread import ControlThread
from mpspmd.runtime.fault import as_fault, describe, exit_code, reason_of
from mpspmd.runtime.foreign import Terminated, logged
from mpspmd.runtime.green_threads import refuse_green_threads
from mpspmd.runtime.hash_seed import forget
from mpspmd.runtime.janitor import Janitor
from mpspmd.runtime.leash import Leash
from mpspmd.runtime.leave import leave
from mpspmd.runtime.main_module import Main, UnguardedMain, dumps_with_main, import_main
from mpspmd.runtime.rank_signals import RankSignals
from mpspmd.runtime.replier import Replier, ThreadReplier
from mpspmd.runtime.room import check_room_on_rank
from mpspmd.runtime.stacks import StackFile
from mpspmd.runtime.worker import LATER, RankContext
from mpspmd.transport.channel import ChannelSegments, Kind, RankChannel
from mpspmd.transport.descriptor import open_standard_descriptors

logger = logging.getLogger(__name__)

# Plain numbers: an enum's operators are slow.
_OUT_OF_BAND, _STEP, _PACKED = int(Kind.OUT_OF_BAND), int(Kind.STEP), int(Kind.PACKED)

START_METHOD = "__init__"
"""What a fault names as its method when a worker can't be made."""


@dataclass
class RankProcess:
    """All that a rank's process is given. Picklable as an argument of a spawned process.

    The worker and its arguments travel as bytes within, and are unpickled only when the control thread
    is there: that may import for many seconds, and may fail.
    """

    rank: int
    world_size: int
    worker: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    segments: ChannelSegments
    run_dir: Path
    digest_requests: bool
    janitor: Janitor
    leash: Leash
    stack_file: StackFile
    signals_of_engine: frozenset[int] = frozenset()
    """What the rank leaves to its engine."""
    step_codec: StepCodec | None = None
    main: Main | None = None
    """The engine's main module; None: this process has begun with it."""
    hash_seed: str = ""
    """What PYTHONHASHSEED was set to for this process."""
    report_start_failure: Callable[[BaseException], None] | None = None
    """Called when the worker can't be made, beside telling the engine."""

    def __getstate__(self) -> dict[str, Any]:
        # Locks may only be pickled while a process is being spawned, with this pickler: now.
        dumps = dumps_with_main if self.main == {} else ForkingPickler.dumps
        pickled = bytes(dumps((self.worker, self.args, self.kwargs)))
        return self.__dict__ | {"worker": pickled, "args": (), "kwargs": {}}

    def _unpack(self, signals: RankSignals) -> None:
        if self.main:
            import_main(self.main)
            # Scripts set handlers for the process that the user has started. This is another.
            signals.set_handlers()
        try:
            self.worker, self.args, self.kwargs = pickle.loads(cast(bytes, self.worker))
        except Exception as error:
            raise DecodeError(
                "the worker or its arguments can't be rebuilt here: "
                f"{type(error).__name__}: {text_of(error)}; define classes and functions at the top level "
                'of a module or of the script, and not under `if __name__ == "__main__":`'
            ) from error

    def __call__(self) -> None:
        """The process's main function. Doesn't return."""
        code = 1
        open_standard_descriptors()
        try:
            signals = RankSignals(self.signals_of_engine)
            forget(self.hash_seed)
            leave_what_is_attached()
            code = self._run(signals)
        except Terminated:
            code = -signal.SIGTERM
        except SystemExit as end:
            # The worker's own.
            code = exit_code(end)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.stack_file.tell(f"{type(error).__qualname__}: {text_of(error)}")
            notice(logger.error, "rank %d failed", self.rank, exc_info=error)
        finally:
            leave(code)

    def _run(self, signals: RankSignals) -> int:
        began = time.monotonic()
        self.stack_file.serve()
        check_room_on_rank(self.rank)
        refuse_green_threads()
        control = ControlThread(control_address(self.run_dir), self.rank)
        channel = RankChannel(self.segments, self.rank)
        self.segments.close()
        signals.take(channel)
        control.send(Hello(self.rank, os.getpid()))
        self.leash.slip()
        ctx = RankContext(
            self.rank, self.rank, self.world_size, str(self.run_dir), self.janitor.remove_at_end
        )
        if self.digest_requests:
            ctx.keep_digest()
        try:
            self._unpack(signals)
            worker = self.worker(ctx, *self.args, **self.kwargs)
            if signals.has_terminated:
                raise Terminated
        except Terminated:
            raise
        except BaseException as error:
            if self.report_start_failure is not None:
                self.report_start_failure(error)
            remote = describe(error, START_METHOD)
            if isinstance(error, UnguardedMain):
                # The engine's own traceback shows the same line.
                remote = replace(remote, exception=ConfigError.__name__, traceback="")
            elif isinstance(error, SystemExit):
                remote = replace(remote, message=reason_of(error))
            control.send(as_fault(remote, self.rank, 0))
            control.close()
            if isinstance(error, SystemExit):
                raise
            return 1
        # Drop what came with the process: a worker may be done with it.
        self.args, self.kwargs = (), {}
        steps = self.step_codec.rank_end() if self.step_codec is not None else None
        loop = RankLoop(self.rank, ctx, worker, channel, control.send, steps)
        control.on_shutdown(loop.leave)
        signals.on_sigterm(loop.leave)
        control.send(Ready(self.rank, time.monotonic() - began))
        try:
            loop.run()
        except BaseException as end:
            # The worker's shutdown may take its time; the engine is told before.
            control.send(Leaving(self.rank, reason_of(end)))
            raise
        finally:
            # A second SIGTERM must not cut the worker's shutdown short.
            signals.ignore()
            try:
                _shut_down(worker)
            finally:
                control.send(Goodbye(self.rank))
                control.close()
        return 0


class RankLoop:
    """Read a request, run it, reply if asked: the same on every rank."""

    def __init__(
        self,
        rank: int,
        ctx: RankContext,
        worker: Any,
        channel: RankChannel,
        report: Callable[[Fault], None],
        step_codec: RankEnd | None = None,
    ) -> None:
        self._rank = rank
        self._ctx = ctx
        self._worker = worker
        self._requests: Inbox | _WatchedInbox = channel.requests
        if (while_waiting := getattr(worker, "while_waiting", None)) is not None:
            self._requests = _WatchedInbox(channel.requests, while_waiting)
        self._line = channel.line
        self._report = report
        self._leaving = False
        self._keeps_digest = ctx.request_digest() is not None
        self._shown_names: dict[str, bytes] = {}
        self._came_before = 0  # what the next request's time is predicted from
        make_replier = ThreadReplier if getattr(worker, "reply_thread", False) else Replier
        self._replier = make_replier(
            rank, worker, channel.replies, channel.line, report, step_codec, self.leave
        )
        self._step_codec = step_codec

    def leave(self) -> None:
        """Ends run() as soon as the current method returns. Another thread."""
        self._leaving = True
        self._requests.interrupt()
        if (told := getattr(self._worker, "told_to_leave", None)) is not None:
            with logged("the worker's told_to_leave"):
                told()

    def run(self) -> None:
        """Until the engine closes the channel, or poisons it, or says to leave."""
        try:
            while True:  # CPython 3.11 specializes no loop that ends in a condition
                if self._leaving:
                    break
                self._line.enter(PHASE_WAITING)
                self._step()
        except (ChannelClosed, ChannelPoisoned):
            pass
        finally:
            self._replier.close()
        if self._replier.end is not None:
            raise self._replier.end

    def _step(self) -> None:
        """One request. Its own frame, so that nothing of it is held while the next is awaited."""
        request = self._receive()
        if request is None:
            return
        method = request.method
        name = method if isinstance(method, str) else request.method_name
        self._came_before = hash(name)
        shown = self._shown_names.get(name) or self._show(name)
        self._line.enter(PHASE_RUNNING, request.step_id, shown)
        try:
            if isinstance(method, str):
                result = getattr(self._worker, method)(*request.args, **request.kwargs)
            else:
                result = method(self._worker, *request.args, **request.kwargs)
        except SystemExit:
            raise
        except BaseException as error:
            unknown = isinstance(method, str) and _is_missing(self._worker, method)
            self._fail(request, describe(error, name, unknown))
            return
        if result is not LATER and request.is_answered_by(self._rank):
            self._line.enter(PHASE_REPLYING)
            self._replier.reply(request.step_id, name, result, request.reply_base)

    def _show(self, name: str) -> bytes:
        """A method's name for the status page; few names make up all steps."""
        shown = name.encode(errors="backslashreplace")
        if len(self._shown_names) < 1000:
            self._shown_names[name] = shown
        return shown

    def _receive(self) -> ExecuteModelRequest | None:
        message = self._requests.recv(None, self._came_before)
        if message is None:
            return None
        _, kind, step, payload = message
        packed = kind & _PACKED
        if not packed and type(payload) is not bytes:  # a small one takes less than anybody's look
            self._line.enter(PHASE_DECODING, step, b"")
        try:
            if self._keeps_digest:
                self._ctx.add_to_digest(cast(bytes, pack(payload)) if packed else payload)
            request = self._decode(step, kind, payload)
        except SystemExit:
            raise
        except BaseException as error:
            request = ExecuteModelRequest(step, "(decoding the request)")
            self._fail(request, describe(error, request.method_name))
            return None
        finally:
            del message
            if isinstance(payload, memoryview):
                payload.release()
                self._requests.release()
        return request

    def _decode(self, step: int, kind: int, payload: Any) -> ExecuteModelRequest:
        codec = self._step_codec
        if kind & _PACKED:
            request = ExecuteModelRequest(step, *payload)
        elif kind & _STEP and codec is not None:
            request = ExecuteModelRequest(step, *codec.decode(step, payload))
        else:
            request = ExecuteModelRequest(step, *decode(payload, kind & _OUT_OF_BAND != 0))
        if codec is not None:
            request.reply_base = codec.reply_base
        return request

    def _fail(self, request: ExecuteModelRequest, remote: RemoteException) -> None:
        if request.is_answered_by(self._rank):
            self._replier.fail(request.step_id, remote)
        else:
            self._report(as_fault(remote, self._rank, request.step_id))


class _WatchedInbox:
    """The ring of requests, for a worker that wants to know when its rank waits."""

    def __init__(
        self, inbox: Inbox, while_waiting: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._inbox = inbox
        self._while_waiting = while_waiting
        self.release = inbox.release
        self.interrupt = inbox.interrupt

    def recv(self, timeout: float | None, key: int) -> tuple[int, int, int, Any] | None:
        with self._while_waiting():
            return self._inbox.recv(timeout, key)


def _is_missing(worker: Any, method: str) -> bool:
    try:
        return not callable(getattr(worker, method))
    except AttributeError:
        return True
    except SystemExit:
        raise
    except BaseException:
        return False


def _shut_down(worker: Any) -> None:
    with logged("the worker's shutdown"):
        shutdown = getattr(worker, "shutdown", None)
        if shutdown is not None:
            shutdown()
