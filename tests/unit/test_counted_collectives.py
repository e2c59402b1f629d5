"""Collectives that torch.distributed doesn't record are in reports if they are counted."""

from __future__ import annotations

import pytest

from mpspmd.collective import Collective
from mpspmd.rank import collectives
from mpspmd.rank.collectives import CountedGroup, last_collectives


@pytest.fixture(autouse=True)
def no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "_counted", [])


def counted() -> list[Collective]:
    """Without those that torch.distributed has recorded in this process."""
    return [each for each in last_collectives() if each.group in ("tp", "pp")]


def test_the_last_collective_of_each_group_is_known_while_it_waits_and_after() -> None:
    tp, pp, _ = CountedGroup("tp"), CountedGroup("pp"), CountedGroup("unused")
    tp.begin("all_reduce", (4, 8))
    tp.end()
    pp.begin("all_gather", (2,))
    tp.begin("gather", (3,))
    assert counted() == [
        Collective("tp", 2, "gather", "[[3]]", done=False),
        Collective("pp", 1, "all_gather", "[[2]]", done=False),
    ]
    tp.end()
    assert counted()[0] == Collective("tp", 2, "gather", "[[3]]", done=True)
    assert "unused" not in {each.group for each in last_collectives()}
