"""Which signals end a rank, and which it leaves to its engine."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from mpspmd.exceptions.foreign import Terminated
from mpspmd.processes.signals import GROUP_SIGNALS, signals_of_engine
from mpspmd.rank.signals import RankSignals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = GROUP_SIGNALS | {signal.SIGALRM, signal.SIGCHLD}
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_sigterm_whose_exception_is_swallowed_still_ends_the_loop() -> None:
    signals = RankSignals()
    left = []
    signals.on_sigterm(lambda: left.append("then"))
    with contextlib.suppress(Terminated):
        signal.raise_signal(signal.SIGTERM)
    assert (signals.terminated, left) == (True, ["then"])
    signals.on_sigterm(lambda: left.append("when the loop is made"))
    assert left == ["then", "when the loop is made"]


def test_what_the_engine_handles_is_left_to_it_but_for_what_concerns_each_process() -> None:
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    assert signal.SIGALRM not in signals_of_engine()
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    assert signals_of_engine() > GROUP_SIGNALS
    assert signal.SIGALRM in signals_of_engine()
    assert signal.SIGCHLD not in signals_of_engine()
