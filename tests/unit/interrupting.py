"""Lets a call be left by an exception at a chosen place, as a signal's handler may leave it."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable
from typing import Any

from mpspmd.errors import EncodeError


class Came(BaseException):
    """What the handler raises."""


def _raise_at(number: int) -> Callable[..., None]:
    """A profile function. It raises at one of the places where Python runs the handlers of signals: when a
    function begins, and when one of C has returned."""
    places = itertools.count()

    def profile(frame: object, event: str, arg: object) -> None:
        if event in ("call", "c_return") and next(places) == number:
            raise Came

    return profile


def interrupted_at(call: Callable[[], Any], number: int) -> bool:
    gc.disable()  # what is raised in a callback of the collector's, such as hypothesis has, is lost
    sys.setprofile(_raise_at(number))
    try:
        call()
    except (Came, EncodeError):  # pickling turns what a handler raises into an EncodeError
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False
