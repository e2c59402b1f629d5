"""What the supervisor says of a rank's end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mpspmd.engine.supervisor import Supervisor
from mpspmd.processes.exit_status import PENDING


class Ending:
    """A process whose exit status may not be known yet."""

    pid = 1234

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def join(self, timeout_s: float) -> None:
        pass

    def exit_reason(self) -> str:
        return self._reason


def test_a_rank_that_has_left_because_another_had_died_is_not_blamed() -> None:
    """The native thread that notices a death poisons the rings first, and tells the supervisor then."""
    told: list[int] = []
    supervisor: Any = Supervisor.__new__(Supervisor)
    supervisor._channel = SimpleNamespace(first_to_die=1)
    supervisor._take_death = told.append
    supervisor._pending = set()
    supervisor._take_end(0)
    assert told == [1, 0]


@pytest.mark.parametrize(
    ("reason", "lines"),
    [(PENDING, []), ("killed by SIGSEGV", ["rank 0 (pid 1234): killed by SIGSEGV"])],
)
def test_only_what_a_rank_has_ended_of_is_the_last_word(
    reason: str, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor: Any = Supervisor.__new__(Supervisor)
    supervisor._pending, supervisor._processes = {0}, [Ending(reason)]
    supervisor._complete_reason(0)
    assert caplog.messages == lines
