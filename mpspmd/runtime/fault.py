"""Exceptions that cross from a rank to the engine."""

from __future__ import annotations

import pickle
import traceback

from mpspmd.control.messages import Fault
from mpspmd.errors import CodecDesync, RankError, UnknownMethod, text_of
from mpspmd.request import RemoteException


def describe(error: BaseException, method: str, unknown_method: bool = False) -> RemoteException:
    """What can be sent of an exception; the exception itself only if it survives pickling."""
    original: BaseException | None = error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        original = None
    return RemoteException(
        method=method,
        exception=type(error).__qualname__,
        message=text_of(error),
        traceback="".join(traceback.format_exception(error)).rstrip(),
        unknown_method=unknown_method,
        original=original,
    )


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
    """The exception that the engine's caller gets."""
    kind = UnknownMethod if remote.unknown_method else RankError
    error = kind(rank, remote.method, step, remote.exception, remote.message, remote.traceback)
    error.__cause__ = remote.original
    return error


def fault_as_error(fault: Fault) -> RankError:
    kind = UnknownMethod if fault.unknown_method else RankError
    return kind(
        fault.rank, fault.method, fault.step, fault.exception, fault.message, fault.traceback
    )


def is_desync(error: BaseException) -> bool:
    """Whether a rank has said that it has lost track of the step codec's state."""
    return isinstance(error, RankError) and error.exception == CodecDesync.__qualname__
