"""Replier: sends what a method returned to the engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mpspmd._ring import StatusLine, Writer
from mpspmd.codec.objects import ObjectEncoder
from mpspmd.codec.steps import RankEnd
from mpspmd.errors import ChannelError
from mpspmd.exceptions.fault import Fault, fault_of
from mpspmd.rank.worker import Worker
from mpspmd.wire import KIND_ERROR, KIND_REPLY, KIND_STEP

_STEP_REPLY = KIND_REPLY | KIND_STEP


class Replier:
    """Encodes and sends in the calling thread."""

    def __init__(
        self,
        rank: int,
        worker: Any,
        writer: Writer,
        line: StatusLine,
        report: Callable[[Fault], None],
        step_codec: RankEnd | None,
        leave: Callable[[], None],
    ) -> None:
        self._rank = rank
        self._worker = worker
        finish = getattr(worker, "finish_reply", None)
        # The base class's returns what it is given: not worth a call a step.
        is_base = getattr(finish, "__func__", None) is Worker.finish_reply
        self._finish = None if is_base else finish
        self._writer = writer
        self._line = line
        self._report = report
        self._encoder = ObjectEncoder()
        self._step_codec = step_codec
        self._leave = leave
        self.end: BaseException | None = None
        """What has ended a thread of the replier's own, and is to end the rank."""

    def reply(self, step: int, method: str, result: Any, base: Any = None) -> None:
        """Waits for space; ChannelClosed and ChannelPoisoned when the run has ended."""
        try:
            if self._finish is not None:
                result = self._finish(result)
            codec = self._step_codec
            message = None if codec is None else codec.encode_reply(step, result, base)
        except SystemExit:
            raise
        except BaseException as error:
            self.fail(fault_of(error, self._rank, step, method))
            return
        try:
            if message is not None:
                self._writer.send(_STEP_REPLY, step, message)
            else:
                self._encoder.send(self._writer, KIND_REPLY, step, result)
        except (ChannelError, SystemExit):
            raise
        except BaseException as error:
            self.fail(fault_of(error, self._rank, step, method))
        else:
            self._line.replied()

    def fail(self, fault: Fault) -> None:
        """Replies that the method has raised."""
        try:
            self._encoder.send(self._writer, KIND_ERROR, fault.step, fault)
        except ChannelError:
            raise
        except Exception:
            # For example, there is no memory left for it. The control plane doesn't use the ring.
            self._report(msgspec.structs.replace(fault, original=None))
        else:
            self._line.replied()

    def close(self) -> None:
        """Nothing more will be replied."""


class ThreadReplier(Replier):
    """Finishes, encodes and sends in a thread of its own, in order, all methods' replies alike.

    For workers whose results are ready only later (asynchronous scheduling): the loop goes on.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mpspmd-replies", daemon=True)
        self._thread.start()

    def fail(self, fault: Fault) -> None:
        if threading.current_thread() is self._thread:
            super().fail(fault)
        else:
            self._queue.put(lambda: super(ThreadReplier, self).fail(fault))

    def reply(self, step: int, method: str, result: Any, base: Any = None) -> None:
        self._queue.put(lambda: self._reply_now(step, method, result, base))

    def _reply_now(self, step: int, method: str, result: Any, base: Any) -> None:
        if self._trouble is not None:
            super().fail(fault_of(self._trouble, self._rank, step, method))
        else:
            super().reply(step, method, result, base)

    def _run(self) -> None:
        try:
            self._start()
            while (send := self._queue.get()) is not None:
                send()
                # What was sent must not live on while the next is awaited.
                del send
        except ChannelError:
            pass  # the run has ended; the loop finds out by itself
        except BaseException as end:
            # Nobody would reply any more.
            self.end = end
            self._leave()

    def _start(self) -> None:
        try:
            start = getattr(self._worker, "start_reply_thread", None)
            if start is not None:
                start()
        except SystemExit:
            raise
        except BaseException as error:
            self._trouble = error

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=5)
