"""Objects as messages: pickle 5, with large buffers beside the pickle instead of in it.

Plain values, which most replies and many requests are, don't come here: Writer.send_packed() sends them
(kind flag PACKED). Any other message is a pickle alone, or a pickle with buffers (flag OUT_OF_BAND):

    u32 number of buffers, u32 0, u64 pickle's length, u64 length of each buffer,
    the pickle, each buffer; every one of them padded to 16 bytes

The decoder copies each buffer once, into writable memory of its own, so that no object refers to the
ring. A message that came in fragments is in such memory already.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from mpspmd._ring import Block, Writer, unpack
from mpspmd.codec.tensors import reduce_tensor
from mpspmd.errors import DecodeError, EncodeError, text_of
from mpspmd.wire import KIND_OUT_OF_BAND

Payload: TypeAlias = bytes | Block | memoryview
Message: TypeAlias = bytes | list[Any]

_ALIGN = 16
_HEAD = struct.Struct("<IIQ")
_IN_BAND_BYTES = 1024  # smaller buffers stay in the pickle, which costs less


def _reduce(obj: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(obj, torch.Tensor):
        return reduce_tensor(obj)
    return NotImplemented


class Pickler(pickle.Pickler):
    """Pickles a tensor as `reduce_tensor` says."""

    def reducer_override(self, obj: Any) -> Any:
        return _reduce(obj)


def _cloud_pickler(stream: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool]) -> Any:
    import cloudpickle

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            reduced = _reduce(obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    return CloudPickler(stream, protocol=5, buffer_callback=keep)


class ObjectEncoder:
    """Turns objects into messages. One thread at a time."""

    def __init__(self) -> None:
        self._buffers: list[memoryview] = []

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _IN_BAND_BYTES:
            return True
        self._buffers.append(raw)
        return False

    def encode(self, obj: Any, *, by_value: bool = False) -> Message:
        """A message with `obj`: bytes, or a list of parts when buffers are out of band.

        `by_value` pickles functions and classes with their code instead of their names. That is also tried
        when plain pickle fails. EncodeError when both fail.
        """
        try:
            if by_value:
                return self._encode_by_value(obj)
            try:
                # A new pickler each time: clearing a memo takes as long as for its largest object ever.
                stream = io.BytesIO()
                Pickler(stream, protocol=5, buffer_callback=self._keep).dump(obj)
                return self._message(stream.getvalue())
            except EncodeError:
                raise
            except (pickle.PicklingError, AttributeError, TypeError):
                return self._encode_by_value(obj)
        except (EncodeError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise EncodeError(
                f"an object of {type(obj).__qualname__} can't be sent to another process: "
                f"{text_of(error)}; send data, and make locks, files and devices where they are used"
            ) from error
        finally:
            self._buffers.clear()

    def send(self, writer: Writer, kind: int, tag: int, obj: Any) -> None:
        """Sends `obj`, packed if it is plain. Waits for space. After an EncodeError nothing was sent."""
        if not writer.send_packed(kind, tag, obj):
            message = self.encode(obj)
            large = KIND_OUT_OF_BAND if isinstance(message, list) else 0
            writer.send(kind | large, tag, message)

    def _encode_by_value(self, obj: Any) -> Message:
        self._buffers.clear()
        stream = io.BytesIO()
        _cloud_pickler(stream, self._keep).dump(obj)
        return self._message(stream.getvalue())

    def _message(self, pickled: bytes) -> Message:
        if not self._buffers:
            return pickled
        lengths = [buffer.nbytes for buffer in self._buffers]
        table = _HEAD.pack(len(lengths), 0, len(pickled)) + struct.pack(
            f"<{len(lengths)}Q", *lengths
        )
        parts: list[Any] = []
        for part in (table, pickled, *self._buffers):
            parts.append(part)
            if padding := -len(part) % _ALIGN:
                parts.append(bytes(padding))
        return parts


def decode(payload: Payload, out_of_band: bool, at: int = 0) -> Any:
    """The object in a message that begins at offset `at`; nothing in it refers to the ring. DecodeError.

    Also decodes a packed value that recv() has returned as bytes.
    """
    if not out_of_band:
        if at:
            with memoryview(payload)[at:] as stream:
                return decode(stream, False)
        try:
            value = unpack(payload)
        except ValueError as error:
            raise DecodeError(f"a message of {len(payload)} bytes: {error}") from error
        return _load(payload, ()) if value is NotImplemented else value
    owned = isinstance(payload, Block)
    with memoryview(payload)[at:] as view:
        pickled, spans = _layout(view)
        buffers: list[Any] = [
            # A slice of our own memory, or a copy out of the ring.
            memoryview(payload)[at + start : at + end]
            if owned
            else memoryview(Block(view[start:end]))
            for start, end in spans
        ]
        with view[slice(*pickled)] as stream:
            return _load(stream, buffers)


def _layout(view: memoryview) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """(start, end) of the pickle, and of each buffer, in the message."""
    try:
        count, _, pickled = _HEAD.unpack_from(view)
        lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    except struct.error as error:
        raise DecodeError(
            f"a message of {view.nbytes} bytes has no buffer table: {error}"
        ) from error
    at = _HEAD.size + 8 * count
    spans = []
    for length in (pickled, *lengths):
        at += -at % _ALIGN
        spans.append((at, at + length))
        at += length
    if at > view.nbytes:
        raise DecodeError(f"a message of {view.nbytes} bytes says that it has {at}")
    return spans[0], spans[1:]


def _load(stream: Payload, buffers: Any) -> Any:
    try:
        return pickle.loads(stream, buffers=buffers)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise DecodeError(
            f"what another process sent can't be rebuilt here: {type(error).__name__}: {text_of(error)}; "
            "classes and functions must be importable in every process"
        ) from error
