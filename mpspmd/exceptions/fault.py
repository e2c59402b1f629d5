"""Exceptions that cross from a rank to the engine."""

from __future__ import annotations

import traceback

from mpspmd.control.messages import Fault
from mpspmd.errors import CodecDesync, RankError, UnknownMethod, text_of
from mpspmd.exceptions import original
from mpspmd.exceptions.foreign import Terminated
from mpspmd.wire import RemoteException

_MESSAGE_LENGTH = 1 << 15
_TRACEBACK_LENGTH = 1 << 17
"""How many characters cross. What is longer is cut in the middle: a traceback's end says most."""


def describe(error: BaseException, method: str, unknown_method: bool = False) -> RemoteException:
    """What can be sent of an exception. Whatever its own code does, this returns."""
    return RemoteException(
        method=method,
        exception=original.qualname_of(type(error)),
        message=_shortened(text_of(error), _MESSAGE_LENGTH),
        traceback=_shortened(_traceback_of(error), _TRACEBACK_LENGTH),
        unknown_method=unknown_method,
        original=original.take_down(error),
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


def as_fault(remote: RemoteException, rank: int, step: int) -> Fault:
    return Fault(
        rank,
        remote.method,
        step,
        remote.exception,
        remote.message,
        remote.traceback,
        remote.unknown_method,
    )


def as_error(remote: RemoteException, rank: int, step: int) -> RankError:
    """The exception that the engine's caller gets, yet without its cause: see `restore_cause`."""
    kind = UnknownMethod if remote.unknown_method else RankError
    error = kind(rank, remote.method, step, remote.exception, remote.message, remote.traceback)
    error.original = remote.original
    return error


def restore_cause(error: BaseException | None) -> None:
    """Rebuilds the rank's exception as the cause of a RankError, once.

    In the thread of whoever is told of the error, and not of the one that reads replies for all.
    """
    if isinstance(error, RankError) and error.original is not None:
        data, error.original = error.original, None
        error.__cause__ = original.rebuild(data)


def fault_as_error(fault: Fault) -> RankError:
    kind = UnknownMethod if fault.unknown_method else RankError
    return kind(
        fault.rank, fault.method, fault.step, fault.exception, fault.message, fault.traceback
    )


def is_desync(error: BaseException) -> bool:
    """Whether a rank has said that it has lost track of the step codec's state."""
    return isinstance(error, RankError) and error.exception == CodecDesync.__qualname__


def exit_code(end: SystemExit) -> int:
    """As a script's."""
    return end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)


def reason_of(end: BaseException) -> str:
    """Why a rank ends by itself: what was raised, and where."""
    if isinstance(end, Terminated):
        return "killed by SIGTERM"
    if not isinstance(end, SystemExit):
        remote = describe(end, "")
        return f"exit code 1: {remote.exception}: {remote.message}\n{remote.traceback}"
    text = "" if end.code is None or isinstance(end.code, int) else f": {text_of(end)}"
    where = ""
    if frames := traceback.extract_tb(end.__traceback__):
        last = frames[-1]
        where = f' (SystemExit in "{last.filename}", line {last.lineno}, in {last.name})'
    return _shortened(f"exit code {exit_code(end)}{text}{where}", _MESSAGE_LENGTH)
