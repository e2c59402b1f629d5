"""Replier: sends to the engine what a method has returned or raised."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mpspmd.codec.objects import ObjectEncoder
from mpspmd.codec.steps import RankEnd
from mpspmd.errors import ChannelError
from mpspmd.exceptions.fault import Fault, fault_of
from mpspmd.rank.worker import Worker
from mpspmd.transport.channel import RankChannel
from mpspmd.wire import KIND_ERROR, KIND_REPLY, KIND_STEP

_STEP_REPLY = KIND_REPLY | KIND_STEP
_NEWEST = object()


class Replier:
    """Encodes and sends in the calling thread. `report` sends a Fault through the control plane, and `stop`
    ends the rank's loop."""

    def __init__(
        self,
        rank: int,
        worker: Any,
        channel: RankChannel,
        report: Callable[[Fault], None],
        step_codec: RankEnd | None,
        stop: Callable[[], None],
    ) -> None:
        self._rank = rank
        self._worker = worker
        finish = getattr(worker, "finish_reply", None)
        # The method of the base class returns its argument. Don't call it in each step.
        is_base = getattr(finish, "__func__", None) is Worker.finish_reply
        self._finish = None if is_base else finish
        self.sends_as_returned = self._finish is None and type(self) is Replier
        """Whether what a method returns is what is sent, and at once."""
        self._writer = channel.replies
        self._line = channel.line
        self._report = report
        self._encoder = ObjectEncoder()
        self._step_codec = step_codec
        self._stop = stop
        self.end: BaseException | None = None
        """What has ended the reply thread. It must end the rank."""

    def reply(self, step: int, method: str, result: Any, base: Any = _NEWEST) -> None:
        """`base`: of the request that this answers; by default of the one that was decoded last.

        Waits for space. ChannelClosed or ChannelPoisoned if the run has ended.
        """
        codec, message = self._step_codec, None
        try:
            if self._finish is not None:
                result = self._finish(result)
            if codec is not None:
                base = codec.reply_base if base is _NEWEST else base
                message = codec.encode_reply(step, result, base)
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
        """There will be no more replies."""


class ThreadReplier(Replier):
    """Finishes, encodes and sends all replies in a thread of its own, in order.

    For workers whose results aren't ready when the method returns, as with vLLM's asynchronous scheduling.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._trouble: BaseException | None = None
        # Not start_thread(): this thread runs the worker's code, and what that starts inherits the mask.
        self._thread = threading.Thread(target=self._run, name="mpspmd-replies", daemon=True)
        self._thread.start()

    def fail(self, fault: Fault) -> None:
        if threading.current_thread() is self._thread:
            super().fail(fault)
        else:
            self._queue.put(lambda: super(ThreadReplier, self).fail(fault))

    def reply(self, step: int, method: str, result: Any, base: Any = _NEWEST) -> None:
        # The main thread decodes other requests before this reply is sent.
        base = None if self._step_codec is None else self._step_codec.reply_base
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
                # The result must not live on while this thread waits for the next one.
                del send
        except ChannelError:
            pass  # the run has ended; the main thread's loop will notice it
        except BaseException as end:
            # Without this thread there are no more replies.
            self.end = end
            self._stop()

    def _start(self) -> None:
        try:
            if (start := getattr(self._worker, "start_reply_thread", None)) is not None:
                start()
        except SystemExit:
            raise
        except BaseException as error:
            self._trouble = error

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=5)
