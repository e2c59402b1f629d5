"""Fault: a rank makes this record of its exception, and the engine makes an error of the record."""

from __future__ import annotations

import traceback

import msgspec

from mpspmd.errors import CodecDesync, RankError, UnknownMethod, text_of
from mpspmd.exceptions import original
from mpspmd.exceptions.foreign import Terminated

_MESSAGE_LENGTH = 1 << 15
_TRACEBACK_LENGTH = 1 << 17
"""Limits in characters. A longer text is cut in the middle, because a traceback's end says most."""


class Fault(msgspec.Struct, tag_field="type", tag="fault", frozen=True):
    """An exception that a rank has raised: a reply, or a message of the control plane."""

    rank: int
    step: int
    """0: the rank's start."""
    method: str
    exception: str
    """The qualified name of the exception's class."""
    message: str
    traceback: str
    unknown_method: bool = False
    """Whether the worker has no such method."""
    original: bytes | None = None
    """The exception itself, encoded by exceptions/original.py; None if it can't be sent."""


def fault_of(
    error: BaseException, rank: int, step: int, method: str, unknown_method: bool = False
) -> Fault:
    """On a rank: all that can be sent of an exception. Returns whatever the exception's own code does."""
    return Fault(
        rank=rank,
        step=step,
        method=method,
        exception=original.qualname_of(type(error)),
        message=_shortened(text_of(error), _MESSAGE_LENGTH),
        traceback=_shortened(_traceback_of(error), _TRACEBACK_LENGTH),
        unknown_method=unknown_method,
        original=original.encode(error),
    )


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Terminated:
        raise
    except BaseException as trouble:
        stack = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        return f"{stack}\n(the rest can't be printed: {type(trouble).__name__})"


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    begin, end = length // 4, length - length // 4
    return f"{text[:begin]}\n… ({len(text) - length} characters are left out) …\n{text[-end:]}"


def error_of(fault: Fault) -> RankError:
    """In the engine: the exception for the caller. `restore_cause` adds its cause later."""
    kind = UnknownMethod if fault.unknown_method else RankError
    error = kind(
        fault.rank, fault.method, fault.step, fault.exception, fault.message, fault.traceback
    )
    error.original = fault.original
    return error


def restore_cause(error: BaseException | None) -> None:
    """Rebuilds the rank's exception as the cause of a RankError, once.

    The thread that gets the error calls this. The rebuilding may run code of the exception's values, which
    must not stop the thread that reads the replies of all callers.
    """
    if isinstance(error, RankError) and error.original is not None:
        data, error.original = error.original, None
        error.__cause__ = original.rebuild(data)


def is_desync(error: BaseException) -> bool:
    """Whether a rank reports that its step codec's state differs from the engine's."""
    return isinstance(error, RankError) and error.exception == CodecDesync.__qualname__


def exit_code(end: SystemExit) -> int:
    """The exit code of a script that raises this."""
    return end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)


def reason_of(end: BaseException) -> str:
    """Why a rank exits unasked: what was raised, and where."""
    if isinstance(end, Terminated):
        return "killed by SIGTERM"
    if not isinstance(end, SystemExit):
        fault = fault_of(end, -1, 0, "")
        return f"exit code 1: {fault.exception}: {fault.message}\n{fault.traceback}"
    text = "" if end.code is None or isinstance(end.code, int) else f": {text_of(end)}"
    where = ""
    if frames := traceback.extract_tb(end.__traceback__):
        last = frames[-1]
        where = f' (SystemExit in "{last.filename}", line {last.lineno}, in {last.name})'
    return _shortened(f"exit code {exit_code(end)}{text}{where}", _MESSAGE_LENGTH)
