"""What is handed out again: only what has come back as it was, and to nobody who could see it twice."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import batches
import pytest
from batches import Batch, Outcome, Rows, joined
from same import assert_same

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyCodec

pytestmark = pytest.mark.timeout(60)

IDS = [f"request-{i}" for i in range(40)]


class Requests:
    """The same batch again and again, from one end to the other."""

    def __init__(self) -> None:
        self._encoder = DeltaEncoder(batches.batch_plan())
        self._decoder = DeltaDecoder(batches.batch_plan())

    def sent(self) -> Batch:
        groups = [([i],) if i % 4 == 0 else None for i in range(len(IDS))]
        return Batch(dict.fromkeys(IDS, 1), len(IDS), Rows(list(IDS), groups=groups))

    def carry(self) -> Any:
        message = self._encoder.encode(self.sent())
        self._encoder.sent()
        return self._decoder.decode(joined(message))[0]


class Replies:
    """The same outcome again and again, each against the one before."""

    def __init__(self) -> None:
        self._codec = ReplyCodec(batches.outcome_plan())
        self._said: Any = None
        self._heard: Any = None

    def sent(self) -> Outcome:
        return Outcome(list(IDS), {key: i for i, key in enumerate(IDS)}, [[7] for _ in IDS])

    def carry(self) -> Any:
        message, self._said = self._codec.encode(self.sent(), (1, IDS, self._said))
        got, self._heard = self._codec.decode(joined(message), (1, IDS, self._heard))
        return got


def keys_of(got: Any) -> list[str]:
    keys: list[str] = got.keys if isinstance(got, Outcome) else got.rows.keys
    return keys


def dict_of(got: Any) -> dict[str, int]:
    found: dict[str, int] = got.index if isinstance(got, Outcome) else got.counts
    return found


BOTH = pytest.mark.parametrize("ends", [Requests, Replies])
PARTS = pytest.mark.parametrize("part", [keys_of, dict_of])


def settled(ends: type) -> Any:
    """Past the messages that are made anew on the way to a steady state."""
    pair = ends()
    for _ in range(4):
        pair.carry()
    return pair


@BOTH
@PARTS
def test_what_somebody_has_stays_his(ends: type, part: Callable[[Any], Any]) -> None:
    pair = settled(ends)
    kept = [part(pair.carry()) for _ in range(5)]
    assert len(set(map(id, kept))) == 5
    for each in kept:
        each.clear()
        assert_same(pair.sent(), pair.carry())


def _reorder(counts: dict[str, int]) -> None:
    first = next(iter(counts))
    counts[first] = counts.pop(first)


def _take_and_put_back(keys: list[str]) -> None:
    keys.append(keys.pop(0))


CHANGES: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (dict_of, lambda counts: counts.clear()),
    (dict_of, lambda counts: counts.popitem()),
    (dict_of, lambda counts: counts.update({IDS[3]: 500})),
    (dict_of, lambda counts: counts.__setitem__(IDS[-1], True)),
    (dict_of, lambda counts: counts.setdefault("another", 1)),
    (dict_of, lambda counts: counts.__ior__({IDS[0]: 3})),
    (dict_of, _reorder),
    (keys_of, lambda keys: keys.clear()),
    (keys_of, lambda keys: keys.append("another")),
    (keys_of, lambda keys: keys.reverse()),
    (keys_of, lambda keys: keys.__setitem__(5, "another")),
    (keys_of, lambda keys: keys.__delitem__(slice(3, 9))),
    (keys_of, _take_and_put_back),
]


@BOTH
@pytest.mark.parametrize(("part", "change"), CHANGES)
def test_what_its_user_has_changed_does_not_come_again(
    ends: type, part: Callable[[Any], Any], change: Callable[[Any], Any]
) -> None:
    pair = settled(ends)
    for _ in range(3):
        change(part(pair.carry()))
        assert_same(pair.sent(), pair.carry())


def places_of_many(pair: Requests) -> set[int]:
    """Of more lists of blocks, one message after the other, than are ever kept."""
    return {
        id(group[0]) for _ in range(600) for group in pair.carry().rows.groups if group is not None
    }


def test_blocks_that_nobody_has_any_more_come_again_and_others_do_not() -> None:
    pair = settled(Requests)
    places = places_of_many(pair)
    assert len(places_of_many(pair) - places) < 100
    # As a worker that adopts its lists, and extends them.
    adopted = [group[0] for group in pair.carry().rows.groups if group is not None]
    for each in adopted:
        each.append(-1)
    assert_same(pair.sent(), pair.carry())
    assert adopted == [[i, -1] for i in range(0, len(IDS), 4)]


class Ending:
    """Something that a user leaves in a list, and whose end decodes the next message itself."""

    def __init__(self, at_end: Callable[[], Any]) -> None:
        self.at_end = at_end

    def __del__(self) -> None:
        self.at_end()


def test_the_end_of_what_a_user_has_left_may_decode_replies_itself() -> None:
    pair = settled(Replies)
    within: list[Any] = []
    for _ in range(20):
        got = pair.carry()
        got.keys[0] = Ending(lambda: within.append(pair.carry()))
        del got
        outer = pair.carry()
        assert_same(pair.sent(), outer)
        assert keys_of(within[-1]) is not keys_of(outer)
        assert_same(pair.sent(), within[-1])
        outer.keys.clear()
        assert_same(pair.sent(), within[-1])
    assert len(within) == 20


@BOTH
def test_what_was_handed_out_keeps_nothing_alive_that_refers_to_its_codec(ends: type) -> None:
    pair = settled(ends)
    got = pair.carry()
    keys_of(got).append(pair)
    gone = weakref.ref(pair)
    del pair, got
    gc.collect()
    assert gone() is None
