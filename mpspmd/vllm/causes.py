"""Causes: how the cause of a failure gets from EngineCore to the caller of `LLM(...)` or `generate`.

vLLM's own errors only say "see root cause above". So the front end opens an anonymous file in memory, which
has no name and needs no removal. EngineCore appends causes to it, and the front end attaches the latest one
to vLLM's error as its `__cause__` (compat.py).
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, BinaryIO, cast

import msgspec

from mpspmd import errors
from mpspmd.transport.segment import open_memory

_VARIABLE = "_MPSPMD_CAUSES"
"""It tells EngineCore, which inherits it, where the file is. It is none of the user's MPSPMD_* settings."""


class _Record(msgspec.Struct, frozen=True):
    kind: str
    args: list[Any]


_decoder: msgspec.msgpack.Decoder[_Record] = msgspec.msgpack.Decoder(_Record)
_seen = 0  # bytes of earlier engines' causes


def open_file() -> None:
    """In the front end, before each engine is started."""
    global _seen
    if _VARIABLE not in os.environ:
        # Without the file an error only lacks its cause. The engine will say that memory is short.
        with contextlib.suppress(errors.SegmentError):
            fd = open_memory("mpspmd-causes")
            status = os.fstat(fd)
            path = f"/proc/{os.getpid()}/fd/{fd}"
            os.environ[_VARIABLE] = f"{status.st_dev}:{status.st_ino}:{path}"
    _seen = len(_read())


def report(error: BaseException) -> None:
    """In EngineCore: the front end's errors will have this as their cause."""
    known = isinstance(error, errors.MpSpmdError)
    kind = type(error).__name__ if known else "MpSpmdError"
    args = list(error.args) if known else [f"{type(error).__name__}: {errors.text_of(error)}"]
    # OSError: the front end may be gone. TypeError: an argument that can't be encoded.
    with contextlib.suppress(OSError, TypeError), _open("ab") as file:
        data = msgspec.msgpack.encode(_Record(kind, args))
        file.write(len(data).to_bytes(4, "little") + data)


def latest() -> errors.MpSpmdError | None:
    """In the front end: why the engine that was started last has failed, if it has reported that."""
    data, record = _read()[_seen:], b""
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "little")
        record, data = data[4 : 4 + size], data[4 + size :]
    return _error_of(record) if record else None


def _error_of(record: bytes) -> errors.MpSpmdError | None:
    """None if the record is damaged: then vLLM's error has no cause, which is better than another error."""
    try:
        decoded = _decoder.decode(record)
        error: errors.MpSpmdError = getattr(errors, decoded.kind)(*decoded.args)
    except (msgspec.DecodeError, AttributeError, TypeError):
        return None
    return error


def _read() -> bytes:
    with contextlib.suppress(OSError), _open("rb") as file:
        data: bytes = file.read()
        return data
    return b""


def _open(mode: str) -> BinaryIO:
    """The front end's file in memory, and no other file. OSError when it is gone.

    The front end's file descriptor may be another file's by now, and another program's files must not even
    be opened. So this checks which file it is before it opens it.
    """
    device, inode, path = (os.environ.get(_VARIABLE) or "::").split(":", 2)
    unopened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(unopened)
        if (device, inode) != (str(status.st_dev), str(status.st_ino)):
            raise FileNotFoundError(f"{path} is another file")
        return cast(BinaryIO, open(f"/proc/self/fd/{unopened}", mode, buffering=0))
    finally:
        os.close(unopened)
