"""RankLoop: what a rank's main thread does from its worker's start to its end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mpspmd._ring import PHASE_DECODING, pack, serve
from mpspmd.codec.objects import decode
from mpspmd.codec.steps import RankEnd
from mpspmd.errors import ChannelClosed, ChannelPoisoned
from mpspmd.exceptions.fault import Fault, fault_of
from mpspmd.exceptions.foreign import logged
from mpspmd.rank.replier import Replier, ThreadReplier
from mpspmd.rank.worker import LATER, RankContext
from mpspmd.transport.channel import RankChannel
from mpspmd.wire import ALL, KIND_OUT_OF_BAND, KIND_PACKED, KIND_STEP, ReplyRanks, name_of

_Receive = Callable[[float | None, int], tuple[int, int, int, Any] | None]


class RankLoop:
    """Reads a request, calls the method, replies if this rank is asked to; again and again.

    `mpspmd._ring.serve` does it. It calls this class for what isn't plain.
    """

    def __init__(
        self,
        ctx: RankContext,
        worker: Any,
        channel: RankChannel,
        report: Callable[[Fault], None],
        step_codec: RankEnd | None,
    ) -> None:
        self._rank = ctx.rank
        self._worker = worker
        self._requests = channel.requests
        self._replies = channel.replies
        self._line = channel.line
        self._report = report
        self._stopping = False
        self._digest = ctx._digest
        make_replier = ThreadReplier if getattr(worker, "reply_thread", False) else Replier
        self._replier = make_replier(ctx.rank, worker, channel, report, step_codec, self.stop)
        self._step_codec = step_codec

    def stop(self) -> None:
        """Ends run() as soon as the current method returns. Any thread."""
        self._stopping = True
        self._requests.interrupt()
        if (told := getattr(self._worker, "told_to_leave", None)) is not None:
            with logged("the worker's told_to_leave"):
                told()

    def run(self) -> None:
        """Returns when the engine has closed or poisoned the channel, or stop() was called."""
        receive: _Receive | None = None
        if (while_waiting := getattr(self._worker, "while_waiting", None)) is not None:
            receive = _watched(self._requests.recv, while_waiting)
        codec = self._step_codec
        try:
            while not self._stopping:
                serve(
                    requests=self._requests,
                    replies=self._replies if self._replier.sends_as_returned else None,
                    line=self._line,
                    rank=self._rank,
                    worker=self._worker,
                    later=LATER,
                    reply_class=None if codec is None else codec.reply_class,
                    receive=receive,
                    decodes_all=self._digest is not None,
                    decode=self._decode_or_fail,
                    fail=self._fail,
                    reply=self._replier.reply,
                )
        except (ChannelClosed, ChannelPoisoned):
            pass
        finally:
            self._replier.close()
        if self._replier.end is not None:
            raise self._replier.end

    def _decode_or_fail(self, kind: int, step: int, payload: Any) -> tuple[Any, ...] | None:
        """(method, args, kwargs, reply_ranks), and the method's name if `method` is to be called itself.
        None if it can't be decoded, which is reported."""
        packed = kind & KIND_PACKED
        if not packed and type(payload) is not bytes:  # a small one is decoded in no time
            self._line.enter(PHASE_DECODING, step, b"")
        try:
            if self._digest is not None:
                self._digest.update(pack(payload) if packed else payload)
            if kind & KIND_STEP and self._step_codec is not None:
                return self._step_codec.decode(step, payload)
            request = payload if packed else decode(payload, kind & KIND_OUT_OF_BAND != 0)
            method, args, kwargs, reply_ranks = request
            if isinstance(method, str):
                return method, args, kwargs, reply_ranks
            call = functools.partial(method, self._worker)
            return call, args, kwargs, reply_ranks, name_of(method)
        except SystemExit:
            raise
        except BaseException as error:
            self._fail(step, None, "(decoding the request)", ALL, error)
            return None
        finally:
            if isinstance(payload, memoryview):
                payload.release()
                self._requests.release()

    def _fail(
        self, step: int, method: Any, name: str, reply_ranks: ReplyRanks, error: BaseException
    ) -> None:
        unknown = isinstance(method, str) and _is_missing(self._worker, method)
        fault = fault_of(error, self._rank, step, name, unknown)
        if reply_ranks == ALL or reply_ranks == self._rank:
            self._replier.fail(fault)
        else:
            self._report(fault)


def _watched(
    receive: _Receive, while_waiting: Callable[[], AbstractContextManager[None]]
) -> _Receive:
    """For a worker that wants to know when its rank waits."""

    def watched(timeout: float | None, key: int) -> tuple[int, int, int, Any] | None:
        with while_waiting():
            return receive(timeout, key)

    return watched


def _is_missing(worker: Any, method: str) -> bool:
    try:
        return not callable(getattr(worker, method))
    except AttributeError:
        return True
    except SystemExit:
        raise
    except BaseException:
        return False
