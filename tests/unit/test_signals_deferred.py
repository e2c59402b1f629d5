"""Signals that come while they are deferred."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from mpspmd.processes.signals import signals_deferred


class Came(Exception):
    """What the handler of SIGTERM raises."""


def _raise(number: int, frame: object) -> None:
    raise Came(number)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, _raise)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_handled_after_the_body(number: int) -> None:
    done: list[int] = []

    def body() -> None:
        with signals_deferred():
            os.kill(os.getpid(), number)
            done.append(number)

    with pytest.raises(Came, match=str(number)):
        body()
    assert done == [number]


@pytest.mark.parametrize("then", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_when_its_handler_is_back_keeps_no_other_from_its_handler(
    then: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = signal.signal

    def install_and_send(number: int, handler: Any) -> Any:
        before = install(number, handler)
        if number == then and handler is _raise:
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_send)
    with pytest.raises(Came), signals_deferred():
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == [_raise, _raise]
