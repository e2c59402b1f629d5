"""Calls that a signal's handler leaves by an exception, as Ctrl-C does, in a program that goes on."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import workers

from mpspmd import Engine

pytestmark = pytest.mark.timeout(120)


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


def _interrupted(call: Callable[[], Any], number: int) -> bool:
    sys.setprofile(_raise_at(number))
    try:
        call()
    except Came:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_they_harm_no_other_thread_wherever_that_happens() -> None:
    number = 0
    with Engine(workers.Calculator, world_size=1) as engine, ThreadPoolExecutor(1) as pool:
        while _interrupted(lambda: engine.execute_model("x"), number):
            other = pool.submit(engine.collective_rpc, "rank", timeout=10)
            assert other.result() == [0], number
            number += 1
        assert number > 20
        assert engine.execute_model("y") == (0, ("y",))
