"""RankLoop: what a rank's main thread does from its worker's start to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

from mpspmd._ring import PHASE_DECODING, PHASE_REPLYING, PHASE_RUNNING, PHASE_WAITING, pack
from mpspmd.codec.objects import decode
from mpspmd.codec.steps import RankEnd
from mpspmd.errors import ChannelClosed, ChannelPoisoned
from mpspmd.exceptions.fault import Fault, fault_of
from mpspmd.exceptions.foreign import logged
from mpspmd.rank.replier import Replier, ThreadReplier
from mpspmd.rank.worker import LATER, RankContext
from mpspmd.transport.channel import RankChannel
from mpspmd.wire import KIND_OUT_OF_BAND, KIND_PACKED, KIND_STEP, ExecuteModelRequest

_Receive = Callable[[float | None, int], tuple[int, int, int, Any] | None]


class RankLoop:
    """Reads a request, calls the method, replies if this rank is asked to; again and again."""

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
        self._requests = channel.requests
        self._receive: _Receive = channel.requests.recv
        if (while_waiting := getattr(worker, "while_waiting", None)) is not None:
            self._receive = _watched(channel.requests.recv, while_waiting)
        self._line = channel.line
        self._report = report
        self._stopping = False
        self._keeps_digest = ctx.request_digest() is not None
        self._shown_names: dict[str, bytes] = {}
        self._came_before = 0  # the key by which recv() predicts when the next request comes
        make_replier = ThreadReplier if getattr(worker, "reply_thread", False) else Replier
        self._replier = make_replier(
            rank, worker, channel.replies, channel.line, report, step_codec, self.stop
        )
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
        try:
            while True:  # CPython 3.11 doesn't optimize a loop that ends in a condition
                if self._stopping:
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
        """Serves one request. A method of its own, so that no local variable keeps the request alive
        while the rank waits for the next one."""
        request = self._next_request()
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
            self._fail(request, name, error, unknown)
            return
        if result is not LATER and request.is_answered_by(self._rank):
            self._line.enter(PHASE_REPLYING)
            self._replier.reply(request.step_id, name, result, request.reply_base)

    def _show(self, name: str) -> bytes:
        """The method's name for the status page, kept because most steps call the same few methods."""
        shown = name.encode(errors="backslashreplace")
        if len(self._shown_names) < 1000:
            self._shown_names[name] = shown
        return shown

    def _next_request(self) -> ExecuteModelRequest | None:
        """Waits for a request. None after an interrupt, or if it can't be decoded, which is reported."""
        message = self._receive(None, self._came_before)
        if message is None:
            return None
        _, kind, step, payload = message
        packed = kind & KIND_PACKED
        if not packed and type(payload) is not bytes:  # a small one is decoded in no time
            self._line.enter(PHASE_DECODING, step, b"")
        try:
            if self._keeps_digest:
                self._ctx.add_to_digest(cast(bytes, pack(payload)) if packed else payload)
            request = self._decode(step, kind, payload)
        except SystemExit:
            raise
        except BaseException as error:
            request = ExecuteModelRequest(step, "(decoding the request)")
            self._fail(request, request.method_name, error)
            return None
        finally:
            del message
            if isinstance(payload, memoryview):
                payload.release()
                self._requests.release()
        return request

    def _decode(self, step: int, kind: int, payload: Any) -> ExecuteModelRequest:
        codec = self._step_codec
        if kind & KIND_PACKED:
            request = ExecuteModelRequest(step, *payload)
        elif kind & KIND_STEP and codec is not None:
            request = ExecuteModelRequest(step, *codec.decode(step, payload))
        else:
            request = ExecuteModelRequest(step, *decode(payload, kind & KIND_OUT_OF_BAND != 0))
        if codec is not None:
            request.reply_base = codec.reply_base
        return request

    def _fail(
        self, request: ExecuteModelRequest, name: str, error: BaseException, unknown: bool = False
    ) -> None:
        fault = fault_of(error, self._rank, request.step_id, name, unknown)
        if request.is_answered_by(self._rank):
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
