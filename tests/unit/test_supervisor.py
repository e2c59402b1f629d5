"""What the supervisor notices, in which order, and what it says of a rank's end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import workers

from mpspmd import Engine
from mpspmd.control.messages import Exiting
from mpspmd.engine.events import Died, Reaped
from mpspmd.engine.observer import Observer, in_order
from mpspmd.engine.stall import StallWatch
from mpspmd.errors import MpSpmdError
from mpspmd.processes.exit_status import PENDING

pytestmark = pytest.mark.timeout(60)


class Ending:
    """A process that has ended, whose exit status may not be known yet."""

    exit_code = None
    pid = 1234
    node = 0
    lost_with = ()

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def is_alive(self) -> bool:
        return False

    def join(self, timeout_s: float) -> None:
        pass

    def exit_reason(self) -> str:
        return self._reason


def test_a_rank_that_has_left_because_another_had_died_is_not_blamed() -> None:
    """The native thread that notices a death poisons the rings first, and tells the supervisor then."""
    assert in_order(1, noticed=[], gone=[0], exiting=[]) == [1, 0]
    assert in_order(1, noticed=[1], gone=[0], exiting=[0, 1]) == [1, 0]
    assert in_order(None, noticed=[], gone=[1], exiting=[0]) == [1, 0]


@pytest.mark.parametrize(
    ("reason", "told"),
    [(PENDING, []), ("killed by SIGSEGV", [Reaped(0, "killed by SIGSEGV")])],
)
def test_only_what_a_rank_has_ended_of_is_the_last_word(reason: str, told: list[Reaped]) -> None:
    ranks: Any = SimpleNamespace(processes=[Ending(reason)])
    channel: Any = SimpleNamespace(first_to_die=0, dead_ranks=lambda: [0])
    nothing: Any = None
    observer = Observer(nothing, channel, nothing, ranks, nothing)
    observer._dead, observer._unexplained = {0}, {0: 0.0}
    assert list(observer.last_reasons()) == told


def test_what_a_rank_says_of_its_exit_may_come_after_its_death() -> None:
    said: list[Exiting] = []
    process = Ending("exit code 3")
    ranks: Any = SimpleNamespace(processes=[process], last_words=lambda rank: "", remote=None)
    channel: Any = SimpleNamespace(first_to_die=0, dead_ranks=lambda: [0], deaths_fd=-1)
    line = {"method": "leave", "phase": "running", "step": 7, "pid": 1234, "node": 0}
    channel.status = SimpleNamespace(line=lambda rank: SimpleNamespace(snapshot=lambda: line))
    plane: Any = SimpleNamespace(poll=lambda timeout_s: (set(), said))
    nothing: Any = None
    observer = Observer(plane, channel, nothing, ranks, nothing)
    (died,) = observer.ended(starting=False)
    assert isinstance(died, Died)
    assert died.pending
    said.append(Exiting(0, "exit code 3: no weights"))
    observer.wait(0)
    assert list(observer.said(starting=False)) == []
    assert list(observer.ended(starting=False)) == [Reaped(0, "exit code 3: no weights")]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose supervisor meets a bug of its own."""
    with Engine(workers.Calculator, world_size=1) as engine:

        def divide(stalls: StallWatch, starting: bool) -> float:
            return 1 / 0

        with monkeypatch.context() as patch:
            patch.setattr(StallWatch, "tick", divide)
            yield engine


def test_a_bug_in_the_supervisor_fails_the_run(broken: Engine, eventually: Any) -> None:
    called = threading.Event()
    broken.on_failure(lambda cause: called.set())
    with pytest.raises(MpSpmdError, match="supervisor has failed: ZeroDivisionError") as caught:
        broken.collective_rpc("sleep", args=(60,))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert called.wait(20)
    pids = broken.pids
    eventually(lambda: not any(map(psutil.pid_exists, pids)), "the ranks are ended")
    broken.shutdown()
