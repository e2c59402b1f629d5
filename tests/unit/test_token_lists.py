"""Lists of tokens: given out again when nobody has them any more, and new to whoever gets them."""

from __future__ import annotations

import gc
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import batches
import pytest
from batches import Outcome, joined

from mpspmd.codec.delta import ReplyCodec

pytestmark = pytest.mark.timeout(60)

BASE: Any = (0, ["a"], None)


def sent(tokens: list[list[int]]) -> list[list[int]]:
    codec = ReplyCodec(batches.outcome_plan())
    message, _ = codec.encode(Outcome(["a"], {"a": 0}, tokens), BASE)
    lists: list[list[int]] = codec.decode(joined(message), BASE)[0].tokens
    return lists


def ones(n: int, first: int = 1000) -> list[list[int]]:
    return [[first + i] for i in range(n)]


def places_of_many() -> set[int]:
    """Of more lists, one reply after the other, than are ever kept."""
    return {id(each) for step in range(20) for each in sent(ones(300, 1000 * step))}


def test_lists_that_nobody_has_any_more_come_again() -> None:
    places = places_of_many()
    others = ones(6000)  # where memory is free
    assert len(places_of_many() - places) < 100
    assert others == ones(6000)


def test_a_list_that_somebody_has_stays_as_it_is() -> None:
    kept: list[tuple[list[int], int]] = []
    draw = random.Random(0)
    for step in range(60):
        lists = sent(ones(50, step * 100))
        assert lists == ones(50, step * 100)
        kept += [(each, each[0]) for each in draw.sample(lists, 5)]
        assert len({id(each) for each in lists}) == 50
        assert all(each == [token] for each, token in kept)


def test_lists_of_other_lengths_are_as_they_were_sent() -> None:
    draw = random.Random(1)
    for _ in range(50):
        tokens = [
            [draw.randrange(-5, 2**40) for _ in range(draw.choice([0, 1, 1, 1, 4]))]
            for _ in range(draw.randrange(40))
        ]
        assert sent(tokens) == tokens


class Kept:
    """Something that a user leaves in a list, with an end that does what it likes."""

    def __init__(self, at_end: Any = None) -> None:
        self.at_end = at_end

    def __del__(self) -> None:
        if self.at_end:
            self.at_end()


def test_what_a_user_has_left_in_a_list_goes_with_the_next_reply_that_looks_at_it() -> None:
    lists = sent(ones(20))
    left = Kept()
    gone = weakref.ref(left)
    lists[3][0] = left  # type: ignore[call-overload]
    lists[4] += [1, 2]
    lists[5].clear()
    del lists, left
    for _ in range(1000):
        assert sent(ones(20)) == ones(20)
    assert gone() is None


def test_the_end_of_what_was_left_may_decode_replies_itself() -> None:
    ends: list[int] = []

    def decode_more() -> None:
        ends.append(len(sent(ones(500))))
        if len(ends) % 20 == 1:  # where much is imported, a collection takes a second
            gc.collect()

    lists = sent(ones(200))
    for each in lists[::3]:
        each[0] = Kept(decode_more)  # type: ignore[call-overload]
    del lists, each
    for _ in range(300):
        assert sent(ones(200, 7)) == ones(200, 7)
    assert len(ends) == 67


def test_few_are_kept_however_many_there_were() -> None:
    gc.collect()
    before = sum(type(each) is list for each in gc.get_objects())
    for _ in range(3):
        sent(ones(30_000))
    gc.collect()
    assert sum(type(each) is list for each in gc.get_objects()) - before <= 4096 + 100


def test_threads_that_decode_at_the_same_time_get_lists_of_their_own() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(200):
            expected = ones(64, number * 1000 + step)
            if sent(expected) != expected:
                wrong.append(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert not wrong
