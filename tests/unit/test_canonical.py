"""canonical(): equal bytes for equal values, however they came to be."""

from __future__ import annotations

from typing import Any

import pytest

from mpspmd.errors import RankError
from mpspmd.replay.replay import canonical


def _text() -> str:
    """A new object each time."""
    return "".join(["to", "ken"])


def test_it_does_not_matter_whether_two_equal_values_are_one_object() -> None:
    text = _text()
    assert canonical([text, text]) == canonical([_text(), _text()])
    assert canonical([text, text]) != canonical([text, text, text])


@pytest.mark.parametrize("is_in_itself", [False, True])
def test_equal_tensors_are_equal_also_in_a_value_that_refers_to_itself(is_in_itself: bool) -> None:
    torch = pytest.importorskip("torch")

    def value(last: int) -> list[Any]:
        made = [torch.tensor([1, 2, last])]
        if is_in_itself:
            made.append(made)
        return made

    assert canonical(value(3)) == canonical(value(3))
    assert canonical(value(3)) != canonical(value(4))


def test_an_error_is_its_rank_its_class_and_its_message() -> None:
    def error(rank: int, traceback: str) -> RankError:
        return RankError(rank, "add", 7, "ValueError", "bad", traceback)

    assert canonical(error(0, "here")) == canonical(error(0, "there"))
    assert canonical(error(0, "here")) != canonical(error(1, "here"))
