"""Stall reports and the supervisor: what one thread does between two lines of another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mpspmd import Engine
from mpspmd.control.messages import Stacks
from mpspmd.engine.rank_stacks import RankStacks

pytestmark = pytest.mark.timeout(60)


def test_a_report_may_sample_ranks_while_the_supervisor_reads_the_samples(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalls = engine._sending._stalls
    samples: dict[int, Any] = {}

    class Sample(tuple[int, float, float]):
        def __iter__(self) -> Iterator[Any]:
            samples[1] = (7, 0.0, 0.0)  # as a report does in another thread
            return super().__iter__()

    samples[0] = Sample((7, 0.0, 0.0))
    monkeypatch.setattr(stalls, "_samples", samples)
    assert stalls._sampled_steps() == {7}


def test_a_late_answer_is_not_taken_for_one_to_the_next_question(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = engine._sending._stalls._stacks
    stacks.ask([0])
    late = Stacks(0, stacks._question, "late")

    def set_and_take(asked: RankStacks, name: str, value: Any) -> None:
        asked.__dict__[name] = value
        asked.take(late)  # as the supervisor does in another thread

    monkeypatch.setattr(RankStacks, "__setattr__", set_and_take)
    assert "late" not in stacks.ask([0])[0].stacks.splitlines()
