"""Faults: the cause of a failure finds its way from EngineCore to the caller of `LLM(...)` or `generate`.

vLLM drops it there: its errors say "see root cause above". So the front end opens a piece of memory, which
needs no name and no removal, EngineCore writes the cause into it, and the front end chains it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, BinaryIO, cast

import msgspec

from mpspmd import errors
from mpspmd.transport.segment import open_memory

_VARIABLE = "_MPSPMD_FAULTS"
"""Where EngineCore finds it: inherited, and not one of the user's MPSPMD_* settings."""

_MARK = "_mpspmd_wrapped"


class _Record(msgspec.Struct, frozen=True):
    kind: str
    args: list[Any]


_decoder = msgspec.msgpack.Decoder(_Record)
_seen = 0  # bytes of earlier engines' faults


def open_faults() -> None:
    """In the front end, before each engine is started."""
    global _seen
    if _VARIABLE not in os.environ:
        # Without it an error lacks its cause; that there is no memory, the engine says.
        with contextlib.suppress(errors.SegmentError):
            fd = open_memory("mpspmd-faults")
            memory = os.fstat(fd)
            place = f"/proc/{os.getpid()}/fd/{fd}"
            os.environ[_VARIABLE] = f"{memory.st_dev}:{memory.st_ino}:{place}"
    _seen = len(_read())


def report(error: BaseException) -> None:
    """In EngineCore: the front end's errors will have this as their cause."""
    known = isinstance(error, errors.MpSpmdError)
    kind = type(error).__name__ if known else "MpSpmdError"
    args = list(error.args) if known else [f"{type(error).__name__}: {errors.text_of(error)}"]
    # The front end may be gone.
    with contextlib.suppress(OSError, TypeError), _open("ab") as file:
        data = msgspec.msgpack.encode(_Record(kind, args))
        file.write(len(data).to_bytes(4, "little") + data)


def last() -> errors.MpSpmdError | None:
    """In the front end: what the engine that was started last has failed of, if it has told."""
    data, latest = _read()[_seen:], b""
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "little")
        latest, data = data[4 : 4 + size], data[4 + size :]
    if not latest:
        return None
    try:
        record = _decoder.decode(latest)
        error: errors.MpSpmdError = getattr(errors, record.kind)(*record.args)
    except (msgspec.DecodeError, AttributeError, TypeError):
        return None
    return error


def _read() -> bytes:
    with contextlib.suppress(OSError), _open("rb") as file:
        data: bytes = file.read()
        return data
    return b""


def _open(mode: str) -> BinaryIO:
    """The front end's memory, and no other file. OSError when it is gone.

    The front end's number may be another process's by now, whose files must not even be opened: so it is
    looked at first, without opening it.
    """
    device, inode, path = (os.environ.get(_VARIABLE) or "::").split(":", 2)
    looked_at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(looked_at)
        if (device, inode) != (str(status.st_dev), str(status.st_ino)):
            raise FileNotFoundError(f"{path} is another file")
        return cast(BinaryIO, open(f"/proc/self/fd/{looked_at}", mode, buffering=0))
    finally:
        os.close(looked_at)


def chain_causes() -> None:
    """In the front end: makes vLLM's errors name their cause. May be called any number of times."""
    from vllm.v1.engine import core_client, exceptions, utils

    if hasattr(utils.wait_for_engine_startup, _MARK):
        return
    dead: type[Exception] = exceptions.EngineDeadError
    make = dead.__init__

    @functools.wraps(make)
    def make_with_cause(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self.__cause__ = last()

    dead.__init__ = make_with_cause  # type: ignore[method-assign]
    _chain(utils, "wait_for_engine_startup", RuntimeError)
    # These raise `from None`.
    _chain(core_client.SyncMPClient, "get_output", dead)
    _chain_async(core_client.AsyncMPClient, "get_output_async", dead)


def _chain(owner: Any, name: str, kind: type[Exception]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except kind as error:
            error.__cause__ = error.__cause__ or last()
            raise

    setattr(call, _MARK, True)
    setattr(owner, name, call)


def _chain_async(owner: Any, name: str, kind: type[Exception]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        except kind as error:
            error.__cause__ = error.__cause__ or last()
            raise

    setattr(owner, name, call)
