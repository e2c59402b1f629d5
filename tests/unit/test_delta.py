"""The delta codec: what comes out is what went in, or nothing does."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import enum
import random
from dataclasses import dataclass
from typing import Any

import batches
import numpy as np
import pytest
from batches import Batch, Manner, Newcomer, Outcome, Params, Rows, joined
from hypothesis import given, settings
from hypothesis import strategies as st
from same import assert_same, field_names

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, ReplyCodec
from mpspmd.errors import CodecDesync, DecodeError, EncodeError


class Ends:
    """An encoder and a decoder, and what goes from the one to the other."""

    def __init__(self, plan: Any = None) -> None:
        self.encoder = DeltaEncoder(plan or batches.batch_plan())
        self.decoder = DeltaDecoder(plan or batches.batch_plan())

    def encode(self, batch: Any, **more: Any) -> bytes:
        message = self.encoder.encode(batch, **more)
        self.encoder.sent()
        return joined(message)

    def carry(self, batch: Any) -> Any:
        return self.decoder.decode(self.encode(batch))[0]


class Odd(enum.IntEnum):
    ONE = 1


keys = st.sampled_from([f"request-{number}" for number in range(12)])
# Where CPython's ints grow by a digit, and where C's end.
edges = [
    sign * (2**bits + off) for sign in (-1, 1) for bits in (15, 30, 60, 63) for off in (-1, 0, 1)
]
numbers = st.integers(-3, 300) | st.sampled_from(edges) | st.integers(-(2**70), 2**70)
odd = st.sampled_from(
    [
        *(None, True, 1.0, "text", (), [], {}, set(), [None], {"a": [1]}, [1, 2.0], b"bytes"),
        *(np.int64(1), [True], {"request-1": True}, {"request-1": np.int32(3)}, {1: 1}),
        *(["\ud800"], Odd.ONE, -0.0, float("nan"), np.float32(1), {1, 2**63 - 1}, {2**63}),
        *({1, 2.0}, {True}, frozenset({1})),
    ]
)
lists = st.lists(numbers, max_size=5)


@st.composite
def some_batches(draw: st.DrawFn) -> Batch:
    """Any values: of the shape that the field's kind expects, mostly."""

    def mostly(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(odd if draw(st.integers(0, 19)) == 0 else strategy)

    known = draw(st.lists(keys, max_size=8))
    n = len(known)
    column = st.lists(st.integers(0, 99) | numbers, min_size=n, max_size=n)
    group = st.none() | st.lists(lists, max_size=3).map(tuple)
    rows = Rows(
        mostly(st.just(known)),
        mostly(column),
        mostly(column),
        mostly(st.lists(group, max_size=9)),
        mostly(st.lists(lists, max_size=4)),
        mostly(st.dictionaries(keys, lists, max_size=4)),
        mostly(st.sets(keys, max_size=3)),
    )
    params = st.builds(
        Params, odd | st.floats(), odd | st.sets(numbers), odd | st.sampled_from(Manner)
    )
    newcomer = st.builds(
        Newcomer,
        odd | keys,
        odd | lists,
        odd | st.lists(lists, max_size=3).map(tuple),
        odd | params,
    )
    counts = mostly(st.dictionaries(keys, st.integers(0, 9) | numbers, max_size=9))
    return Batch(
        counts,
        mostly(numbers),
        mostly(st.just(rows)),
        mostly(st.dictionaries(keys, lists, max_size=4)),
        mostly(st.sets(keys, max_size=3)),
        mostly(st.none() | st.sets(keys, max_size=3)),
        draw(odd),
        False,
        mostly(st.lists(newcomer, max_size=3)),
    )


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.lists(some_batches(), max_size=12))
def test_any_sequence_of_any_values_comes_out_as_it_went_in(sequence: list[Batch]) -> None:
    ends = Ends()
    for batch in sequence:
        before = copy.deepcopy(batch)
        assert_same(before, ends.carry(batch))
        assert_same(before, batch)  # encoding changes nothing
        assert len(ends.encoder) == len(ends.decoder)


class Traffic:
    """Requests that come, are counted on, pause, come back, and end; as a scheduler makes them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.running: dict[str, list[int]] = {}
        self.made = 0

    def batch(self, max_requests: int = 30) -> Batch:
        draw = self.random
        finished = {key for key in self.running if draw.random() < 0.1}
        for key in finished:
            del self.running[key]
        here = [key for key in self.running if draw.random() < 0.9]
        if draw.random() < 0.2:
            draw.shuffle(here)
        rows = Rows(
            here,
            [len(self.running[key]) for key in here],
            [len(self.running[key]) // 2 for key in here],
            [([draw.randrange(99)],) if draw.random() < 0.1 else None for _ in here],
            tails={key: list(self.running[key]) for key in here if draw.random() < 0.3},
        )
        while len(self.running) < max_requests and draw.random() < 0.6:
            # Some ids come again, some while they finish.
            key = f"r{self.made}" if draw.random() < 0.8 else f"r{draw.randrange(self.made + 1)}"
            self.made += 1
            self.running.setdefault(key, [draw.randrange(9)] * draw.randrange(1, 40))
        counts = {key: draw.choice([1, 1, 1, 5]) for key in here}
        counts |= {key: len(tokens) for key, tokens in self.running.items() if key not in here}
        drafts = {key: [-1, draw.randrange(99)] for key in here if draw.random() < 0.2}
        for key in here:
            self.running[key].extend(draw.randrange(10**5) for _ in range(counts[key]))
        return Batch(counts, sum(counts.values()), rows, drafts, finished | {"never sent"}, set())


@pytest.mark.parametrize("seed", range(20))
def test_requests_that_come_and_go_come_out_as_they_went_in(seed: int) -> None:
    traffic, ends = Traffic(seed), Ends()
    for _ in range(60):
        batch = traffic.batch()
        assert_same(batch, ends.carry(batch))


def steady(n: int, step: int) -> Batch:
    ids = [f"request-{i}" for i in range(n)]
    rows = Rows(ids, [100 + i + step for i in range(n)], [step] * n, [None] * n)
    return Batch(dict.fromkeys(ids, 1), n, rows)


def test_a_steady_message_is_as_small_for_many_requests_as_for_few() -> None:
    lengths = {}
    for n in (64, 4096):
        ends = Ends()
        for step in range(4):
            message = ends.encode(steady(n, step))
            assert_same(steady(n, step), ends.decoder.decode(message)[0])
        lengths[n] = len(message)
    assert lengths[4096] <= lengths[64] + 8 < 100


def test_a_key_that_is_named_twice_comes_out_twice() -> None:
    ends = Ends()
    for number in range(8):
        batch = Batch(
            counts={"a": 1, "b": 1},
            rows=Rows(["a", "a", "b"], [number] * 3, [2 * number] * 3, [None] * 3),
        )
        assert ends.carry(batch) == batch


def test_batches_that_take_turns_are_steady_too() -> None:
    ends = Ends()
    for _ in range(8):
        for first in (0, 1000):
            ids = [f"request-{first + i}" for i in range(500)]
            message = ends.encode(Batch(dict.fromkeys(ids, 1), 500, Rows(ids)))
            assert list(ends.decoder.decode(message)[0].counts) == ids
    assert len(message) < 100


def flips(message: bytes) -> Any:
    for place in range(len(message)):
        changed = bytearray(message)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def three_messages(traffic: Traffic) -> tuple[Ends, list[bytes]]:
    ends = Ends()
    for _ in range(5):
        ends.carry(traffic.batch())
    batch = traffic.batch()
    batch.anything = [np.arange(2000), "cold"]
    return ends, [ends.encode(each) for each in (traffic.batch(), batch, traffic.batch())]


def test_a_flipped_bit_anywhere_is_found() -> None:
    ends, messages = three_messages(Traffic(1))
    ends.decoder.decode(messages[0])
    for changed in flips(messages[1]):
        with pytest.raises(CodecDesync):
            ends.decoder.decode(changed)


def test_a_lost_a_repeated_and_a_cut_message_are_found() -> None:
    for wrong in ([1], [0, 0], [0, 2], [0, 1, 0]):
        ends, messages = three_messages(Traffic(2))
        for good in wrong[:-1]:
            ends.decoder.decode(messages[good])
        with pytest.raises(CodecDesync):
            ends.decoder.decode(messages[wrong[-1]])
    ends, messages = three_messages(Traffic(3))
    for length in range(len(messages[0])):
        with pytest.raises(CodecDesync):
            ends.decoder.decode(messages[0][:length])


def test_a_repeated_key_frame_is_found() -> None:
    ends = Ends()
    first = ends.encode(steady(3, 0))
    ends.decoder.decode(first)
    with pytest.raises(CodecDesync, match="message 0 came where 1 was due"):
        ends.decoder.decode(first)


def test_after_a_desync_only_a_key_frame_is_taken() -> None:
    traffic = Traffic(4)
    ends, messages = three_messages(traffic)
    for late in messages[1:]:
        with pytest.raises(CodecDesync):
            ends.decoder.decode(late)
    ends.encoder.reset()
    for _ in range(3):
        batch = traffic.batch()
        assert_same(batch, ends.carry(batch))


def test_ends_that_have_drifted_apart_are_found() -> None:
    """The same bytes, but what they were decoded against wasn't the same."""
    ends, other = Ends(), Ends()
    first, second = steady(3, 0), steady(3, 1)
    ends.carry(first)
    changed = steady(3, 0)
    changed.rows.trend[1] += 1
    other.carry(changed)
    with pytest.raises(CodecDesync, match="drifted apart"):
        other.decoder.decode(ends.encode(second))


class _Held(ctypes.Structure):
    """The beginning of csrc/delta/requests.c's delta_object: where a decoder holds its rows' numbers."""

    _fields_ = (
        ("head", ctypes.c_size_t * 2),
        ("plan", ctypes.c_void_p),
        ("slot_of", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("columns", ctypes.POINTER(ctypes.c_int64) * 4),
    )


@pytest.mark.parametrize("column", [1, 2])  # PROGRESS, TREND
@pytest.mark.parametrize(
    "drift",
    [
        *((1, -1, -1, 1), (-1, 2, -1, 0), (3, -1, 0, 0), (0, 5, -3, 0)),  # sums of drifts and slots
        (1, 0, 0, 0),
    ],
)
def test_drifts_of_several_rows_do_not_hide_each_other(column: int, drift: tuple[int, ...]) -> None:
    """As if the memory of one end had been damaged, so that what it makes of the next message differs."""
    ends = Ends()
    for step in range(3):
        ends.carry(steady(4, step))
    rows = _Held.from_address(id(ends.decoder._delta)).columns[column]
    assert rows[:4] == [[102, 103, 104, 105], [2] * 4][column - 1]
    for slot, change in enumerate(drift):
        rows[slot] += change
    ends.carry(steady(4, 3))  # all as predicted: it looks right
    with pytest.raises(CodecDesync, match="drifted apart"):
        ends.carry(steady(4, 4))


def test_a_message_that_was_never_sent_is_made_up_for() -> None:
    traffic, ends = Traffic(5), Ends()
    for step in range(30):
        batch = traffic.batch()
        if step % 3 == 1:
            ends.encoder.encode(batch)  # timed out: the other end never sees it
        else:
            assert_same(batch, ends.carry(batch))


def test_what_cant_be_encoded_leaves_both_ends_usable() -> None:
    traffic, ends = Traffic(6), Ends()
    for step in range(9):
        batch = traffic.batch()
        if step % 3 == 1:
            batch.anything = (each for each in "a generator")
            with pytest.raises(EncodeError):
                ends.encode(batch)
        else:
            assert_same(batch, ends.carry(batch))


class Brittle:
    """Can be sent, and not rebuilt."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_what_cant_be_decoded_doesnt_lose_the_thread() -> None:
    traffic, ends = Traffic(7), Ends()
    for step in range(9):
        batch = traffic.batch()
        if step % 3 == 1:
            batch.anything = Brittle()
            with pytest.raises(DecodeError, match="not a number"):
                ends.carry(batch)
        else:
            assert_same(batch, ends.carry(batch))


def spoil(value: Any) -> None:
    """Changes everything that can be changed."""
    if (names := field_names(value)) is not None:
        for name in names:
            spoil(getattr(value, name))
            setattr(value, name, "spoiled")
    elif isinstance(value, dict):
        for each in list(value.values()):
            spoil(each)
        value.clear()
        value["spoiled"] = 1
    elif isinstance(value, list):
        for each in value:
            spoil(each)
        value[:] = ["spoiled"]
    elif isinstance(value, set):
        value.add("spoiled")
    elif isinstance(value, tuple):
        for each in value:
            spoil(each)


def test_changing_what_was_sent_or_what_came_changes_no_later_step() -> None:
    traffic, twin, ends = Traffic(8), Traffic(8), Ends()
    for _ in range(60):
        batch = traffic.batch()
        got = ends.carry(batch)
        assert_same(twin.batch(), got)
        spoil(got)
        spoil(batch)


def test_changing_what_came_changes_no_later_step_of_the_same_requests() -> None:
    ends = Ends()
    for step in range(6):
        got = ends.carry(steady(5, step))
        assert_same(steady(5, step), got)
        spoil(got)


def test_rows_end_with_their_requests() -> None:
    ends, n = Ends(), 100
    for step in range(1001):
        finished = {f"r{i}" for i in range(n * (step - 1), n * step)}
        ids = [f"r{i}" for i in range(n * step, n * (step + 1))] if step < 1000 else []
        tails = {key: [1, 2, 3] for key in ids}
        batch = Batch(dict.fromkeys(ids, 1), n, Rows(ids, tails=tails), finished=finished)
        ends.carry(batch)
        assert len(ends.encoder) == len(ends.decoder) == len(ids)


@dataclass
class Later(Batch):
    """As another version might have it."""

    added: Any = None
    added_too: Any = dataclasses.field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Slotted:
    counts: Any
    anything: Any


def test_fields_that_nobody_knew_of_and_attributes_that_are_no_fields_come_along() -> None:
    ends = Ends(batches.batch_plan(Later))
    for added in ({1: [2, 3]}, None, 7, [np.arange(3)], [np.arange(3000)]):
        batch = Later(counts={"a": 1}, added=added, added_too=[added])
        batch.attached = added
        got = ends.carry(batch)
        assert_same(batch, got)
        assert_same(batch.attached, got.attached)
    assert not hasattr(ends.carry(Later()), "attached")


def test_what_follows_from_fields_is_not_sent() -> None:
    batch = Batch({"a": 1}, 1, Rows(["a"]))
    assert batch.rows.n_keys == 1
    assert "n_keys" not in vars(Ends().carry(batch).rows)


def test_dataclasses_with_slots_and_frozen_ones_are_rebuilt() -> None:
    from mpspmd.codec.delta import Kind, plan

    ends = Ends(plan(Slotted, {"counts": Kind.COUNTS}))
    for count in range(3):
        assert_same(Slotted({"a": count}, [1]), ends.carry(Slotted({"a": count}, [1])))


def test_a_subclass_is_not_taken_for_the_class() -> None:
    with pytest.raises(TypeError):
        Ends().carry(Later())
    sent = Batch(rows=Later())
    assert_same(sent, Ends().carry(sent))


def test_what_goes_beside_a_record_comes_out_too() -> None:
    ends = Ends()
    message = ends.encode(steady(3, 0), note=2**40, label=b"label", extra=[np.arange(1000), 1])
    _, note, label, extra = ends.decoder.decode(bytearray(message))
    assert (note, label, extra[1]) == (2**40, b"label", 1)
    assert extra[0].tolist() == list(range(1000))


def test_a_struct_comes_out_as_it_is_and_not_as_its_constructor_would_have_it() -> None:
    params = Params()
    params.warmth = 451.0
    params.extra = [1]  # type: ignore[attr-defined]
    assert params.is_warm
    ends = Ends()
    got = ends.carry(Batch(newcomers=[Newcomer("a", params=params)])).newcomers[0].params
    assert_same(params, got)
    assert vars(got) == {"extra": [1]}, "what follows from fields is not sent"
    assert got.manner is Manner.CALM


def test_a_newcomer_has_the_very_key_of_its_row() -> None:
    ends = Ends()
    for number in range(3):
        name = f"request-{number}"
        got = ends.carry(Batch(counts={name: 8}, newcomers=[Newcomer(name), Newcomer("unknown")]))
        (key,) = got.counts
        assert got.newcomers[0].key is key
        assert got.newcomers[1].key == "unknown"


# Replies.


@st.composite
def replies(draw: st.DrawFn) -> tuple[list[str], Outcome]:
    """What was scheduled, and a reply to it: permuted, in part, or something else altogether."""
    scheduled = draw(st.lists(keys, unique=True, max_size=8))
    order = draw(st.permutations(scheduled))
    if draw(st.integers(0, 5)) == 0:
        order = draw(st.lists(keys, max_size=5))
    index = {key: i for i, key in enumerate(order)}
    if draw(st.integers(0, 3)) == 0:
        index = {key: index[key] for key in draw(st.permutations(list(index)))}
    tokens = draw(odd if draw(st.integers(0, 9)) == 0 else st.lists(lists, max_size=5))
    strange = draw(st.integers(0, 9)) == 0
    return scheduled, Outcome(
        draw(odd) if strange else order, draw(odd) if strange else index, tokens, draw(odd)
    )


def copied(key: str) -> str:
    """Equal, but another object, as in another process."""
    return key.encode().decode()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(replies(), st.booleans()), max_size=10))
def test_any_replies_come_out_whichever_of_them_are_lost(sequence: Any) -> None:
    rank, engine = ReplyCodec(batches.outcome_plan()), ReplyCodec(batches.outcome_plan())
    rank_order = engine_order = None
    for check, ((scheduled, outcome), arrives) in enumerate(sequence):
        message, order = rank.encode(outcome, (check, scheduled, rank_order))
        if arrives:
            base = (check, [copied(key) for key in scheduled], engine_order)
            got, got_order = engine.decode(joined(message), base)
            assert_same(outcome, got)
            spoil(got)
            rank_order, engine_order = order, got_order


class InputBatch:
    """Requests in rows, as a model runner has them: a few come, go and change places at a time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.order: list[str] = []
        self.index: dict[str, int] = {}
        self.made = 0

    def change(self) -> None:
        draw = self.random
        for _ in range(draw.choice([0, 0, 1, 3])):
            self.remove(draw.choice(self.order) if self.order else "")
        for _ in range(draw.choice([0, 1, 2])):
            self.made += 1
            # Now and then one that has been there, or even is.
            self.add(f"request-{draw.choice([self.made, draw.randrange(self.made)])}")
        if len(self.order) > 1 and draw.random() < 0.1:
            self.swap(*draw.sample(range(len(self.order)), 2))

    def remove(self, key: str) -> None:
        if key not in self.index:
            return
        row, last = self.index.pop(key), self.order.pop()
        if last != key:
            self.order[row] = last
            self.index[last] = row

    def add(self, key: str) -> None:
        if key not in self.index:
            self.index[key] = len(self.order)
            self.order.append(key)

    def swap(self, a: int, b: int) -> None:
        self.order[a], self.order[b] = self.order[b], self.order[a]
        self.index[self.order[a]], self.index[self.order[b]] = a, b


@pytest.mark.parametrize("seed", range(5))
def test_an_input_batch_that_changes_a_little_is_said_in_few_bytes(seed: int) -> None:
    rank, engine = ReplyCodec(batches.outcome_plan()), ReplyCodec(batches.outcome_plan())
    batch, rank_order, engine_order, sizes = InputBatch(seed), None, None, []
    for number in range(40):
        batch.add(f"first-{number}")
    for check in range(300):
        batch.change()
        scheduled = sorted(batch.index)  # in an order of its own
        outcome = Outcome(list(batch.order), batch.index.copy(), [])
        message, rank_order = rank.encode(outcome, (check, scheduled, rank_order))
        base = (check, [copied(key) for key in scheduled], engine_order)
        got, engine_order = engine.decode(joined(message), base)
        assert_same(outcome, got)
        sizes.append(len(joined(message)))
        spoil(got)
    assert sum(sizes[10:]) / len(sizes[10:]) < 45, "a head of 17, and a few edits"


def sizes_of_replies(*steps: tuple[list[str], list[str]]) -> list[int]:
    """Of replies, each (scheduled keys, its own order). They must come out as they went in."""
    rank, engine = ReplyCodec(batches.outcome_plan()), ReplyCodec(batches.outcome_plan())
    rank_order, engine_order, sizes = None, None, []
    for check, (scheduled, keys) in enumerate(steps):
        outcome = Outcome(keys, {key: i for i, key in enumerate(keys)}, [])
        message, rank_order = rank.encode(outcome, (check, scheduled, rank_order))
        base = (check, [copied(key) for key in scheduled], engine_order)
        got, engine_order = engine.decode(joined(message), base)
        assert_same(outcome, got)
        sizes.append(len(joined(message)))
    return sizes


MANY_KEYS = [f"request-{number}" for number in range(1000)]


def test_an_order_as_the_request_has_it_takes_few_bytes_though_all_keys_have_moved() -> None:
    fewer = MANY_KEYS[1:]
    first, *_, last = sizes_of_replies(
        (MANY_KEYS, MANY_KEYS), (MANY_KEYS, MANY_KEYS), (fewer, list(fewer))
    )
    assert last < first
    assert last < 45


def test_an_order_of_equal_keys_that_are_other_objects_takes_few_bytes() -> None:
    copies = [copied(key) for key in MANY_KEYS]
    assert sizes_of_replies((MANY_KEYS, MANY_KEYS), (MANY_KEYS, copies))[1] < 45


@pytest.mark.parametrize("mix", [list.reverse, random.Random(0).shuffle])
def test_an_order_that_is_all_mixed_up_comes_as_it_is(mix: Any) -> None:
    mixed = list(MANY_KEYS)
    mix(mixed)
    sizes_of_replies((MANY_KEYS, mixed), (MANY_KEYS, MANY_KEYS), (MANY_KEYS, mixed))


def test_a_reply_that_was_changed_or_is_anothers_is_found() -> None:
    codec = ReplyCodec(batches.outcome_plan())
    scheduled = ["a", "b", "c"]
    outcome = Outcome(["b", "a"], {"b": 0, "a": 1}, [[1], [2, 3]], np.arange(500))
    message, order = codec.encode(outcome, (7, scheduled, None))
    whole = joined(message)
    assert_same(outcome, codec.decode(whole, (7, scheduled, None))[0])
    for changed in flips(whole):
        with pytest.raises(CodecDesync):
            codec.decode(changed, (7, scheduled, None))
    for base in ((8, scheduled, None), (7, scheduled, order)):
        with pytest.raises(CodecDesync):
            codec.decode(whole, base)
    for length in range(len(whole)):
        with pytest.raises(CodecDesync):
            codec.decode(whole[:length], (7, scheduled, None))
