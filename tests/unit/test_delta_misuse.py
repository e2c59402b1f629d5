"""The delta codec in wrong hands: records that change while they are encoded, and plans that can't be."""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from mpspmd import _delta
from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder, Kind, ReplyCodec, ReplyOrder, plan
from mpspmd.codec.objects import ObjectEncoder, decode
from mpspmd.errors import CodecDesync


@dataclass
class One:
    a: Any


@dataclass
class Two:
    a: Any
    b: Any


class Text(str):
    pass


class Chameleon:
    """Equal to anything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def dumps(value: Any) -> Any:
    return ObjectEncoder().encode(value)


def loads(payload: Any, out_of_band: bool, at: int) -> Any:
    return decode(payload, out_of_band, at)


def carry(value: Any, how: Any) -> Any:
    return DeltaDecoder(how).decode(DeltaEncoder(how).encode(value))[0]  # type: ignore[arg-type]


class TestChanges:
    """Attributes, comparisons, unpickling and finalizers run anybody's code."""

    @pytest.mark.parametrize("change", [list.clear, lambda records: records.__setitem__(1, 7)])
    def test_a_list_of_records_that_an_attribute_changes(
        self, change: Callable[[list[Any]], None]
    ) -> None:
        class Changing:
            def __getattr__(self, name: str) -> int:
                if name == "a":
                    change(records)
                    return 1
                raise AttributeError(name)

        how = plan(
            One,
            {
                "a": [
                    _delta.Plan(
                        Changing, (("a", 0, None),), {"a": None}, frozenset({"a"}), True, True
                    )
                ]
            },
        )
        records: list[Any] = [Changing(), Changing()]
        encoder = DeltaEncoder(how)
        with pytest.raises(RuntimeError, match="changed while"):
            encoder.encode(One(records))
        assert carry(One([]), how) == One([])

    def test_attributes_that_a_name_removes(self) -> None:
        class Name:
            armed = False

            def __hash__(self) -> int:
                if Name.armed:
                    value.__dict__.clear()
                return 5

        value = One(1)
        value.__dict__[Name()] = [object()]  # type: ignore[index]
        Name.armed = True
        assert DeltaEncoder(plan(One, {})).encode(value)

    def test_what_goes_beside_a_record_is_held_while_that_is_made(self) -> None:
        held: list[Any] = []
        reused: list[list[int]] = []

        class Making(One):
            def __new__(cls, *_: Any) -> Any:
                held.clear()
                reused.extend([0] for _ in range(100))
                return super().__new__(cls)

        def loads(*_: Any) -> list[Any]:
            held.append(["extra"])
            return held

        how = plan(Making, {})
        message = _delta.DeltaEncoder(how).encode(
            Making(1), 0, b"", "extra", lambda cold: pickle.dumps(cold)
        )
        assert _delta.DeltaDecoder(how).decode(message, loads)[3] == ["extra"]

    def test_an_interrupt_stays_one(self) -> None:
        class Interrupted(One):
            armed = False

            def __new__(cls, *_: Any) -> Any:
                if cls.armed:
                    raise KeyboardInterrupt
                return super().__new__(cls)

        how = plan(Interrupted, {})
        message = DeltaEncoder(how).encode(Interrupted(1))
        Interrupted.armed = True
        with pytest.raises(KeyboardInterrupt):
            DeltaDecoder(how).decode(message)  # type: ignore[arg-type]

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects between bytecodes only")
    @pytest.mark.parametrize("allocations", range(8))
    @pytest.mark.parametrize("kind", [Kind.COUNTS, Kind.TAILS])
    @pytest.mark.parametrize("change", ["clear", "grow"])
    def test_a_dict_that_a_finalizer_changes(
        self, kind: Kind, change: str, allocations: int
    ) -> None:
        """The collector runs within an allocation of the encoder's: after so many."""
        keys = [f"key-{number}" for number in range(400)]
        counts: Any = {key: [1] if kind is Kind.TAILS else 1 for key in keys}

        class Trap:
            def __init__(self) -> None:
                self.cycle = self

            def __del__(self) -> None:
                if change == "clear":
                    counts.clear()
                else:
                    counts.update({f"more-{number}": 1 for number in range(9000)})

        encoder = DeltaEncoder(plan(Two, {"a": Kind.KEYS, "b": kind}))
        encoder.encode(Two(keys, None))
        encoder.sent()
        thresholds, problem = gc.get_threshold(), "changed while"
        gc.collect()
        gc.disable()
        try:
            Trap()
            gc.set_threshold(gc.get_count()[0] + allocations)
            gc.enable()
            encoder.encode(Two(keys[::-1], counts))
        except RuntimeError as error:
            problem = str(error)
        finally:
            gc.disable()
            gc.set_threshold(*thresholds)
            gc.enable()
        assert "changed while" in problem


class TestPlans:
    @pytest.mark.parametrize(
        "hot",
        [
            {"a": Kind.KEYS, "b": Kind.KEYS},
            {"a": Kind.COUNTS, "b": Kind.COUNTS},
            {"a": Kind.KEYS, "b": Kind.ORDER},
            {"a": Kind.COUNTS, "b": plan(One, {"a": Kind.COUNTS})},
            {"a": Kind.COUNTS, "b": [plan(One, {"a": Kind.FINISHED})]},
            {"a": Kind.ORDER, "b": Kind.GROUPS},
        ],
    )
    def test_kinds_that_do_not_go_together_are_refused(self, hot: Any) -> None:
        with pytest.raises(ValueError, match=r"field '[ab]'"):
            plan(Two, hot)

    def test_rows_that_end_after_the_counts(self) -> None:
        counts, finished = plan(One, {"a": Kind.COUNTS}), plan(One, {"a": Kind.FINISHED})
        how = plan(Two, {"a": counts, "b": finished})
        encoder, decoder = DeltaEncoder(how), DeltaDecoder(how)
        for number in range(4):
            record = Two(One({f"r{number}": 1, f"r{number - 1}": 1}), One({f"r{number - 1}"}))
            assert decoder.decode(encoder.encode(record))[0] == record  # type: ignore[arg-type]
            encoder.sent()
            assert encoder.reply_base(None) == decoder.reply_base(None)

    def test_rows_that_only_one_end_takes_to_have_ended_before_the_counts(self) -> None:
        @dataclass
        class Mixed:
            keys: Any
            inner: One
            counts: Any

        def how(kind: Kind) -> _delta.Plan:
            inner = plan(One, {"a": kind})
            return plan(Mixed, {"keys": Kind.KEYS, "inner": inner, "counts": Kind.COUNTS})

        encoder, decoder = DeltaEncoder(how(Kind.KEYSET)), DeltaDecoder(how(Kind.FINISHED))
        for ended in (set(), set(), {"a"}):
            message = encoder.encode(Mixed(["a", "b"], One(ended), {"a": 1, "b": 1}))
            encoder.sent()
            with pytest.raises(CodecDesync) if ended else contextlib.nullcontext():
                decoder.decode(message)  # type: ignore[arg-type]

    def test_a_plan_for_replies_is_none_for_requests_and_the_other_way_round(self) -> None:
        with pytest.raises(ValueError, match="one for replies"):
            DeltaEncoder(plan(One, {"a": Kind.ORDER}))
        codec = ReplyCodec(plan(One, {"a": Kind.KEYS}))
        with pytest.raises(ValueError, match="one for requests"):
            codec.encode(One(["x"]), (1, ["x"], None))
        with pytest.raises(ValueError, match="one for requests"):
            codec.decode(b"", (1, ["x"], None))

    @pytest.mark.parametrize("more", [None, One, plan(One, {})])
    def test_members_are_a_tuple(self, more: Any) -> None:
        with pytest.raises(ValueError, match="a tuple for MEMBER"):
            _delta.Plan(One, (("a", int(Kind.MEMBER), more),), {"a": None}, frozenset(), True, True)
        with pytest.raises(ValueError, match="a tuple for MEMBER"):
            _delta.Plan(One, (("a", 0, (1, 2)),), {"a": None}, frozenset(), True, True)

    @pytest.mark.parametrize(
        "field", [7, ("a",), ("a", 0), (1, 0, None), ("a", "0", None), ("a", 1 << 31, None)]
    )
    def test_a_field_that_is_none_is_refused(self, field: Any) -> None:
        with pytest.raises((TypeError, OverflowError)):
            _delta.Plan(One, (field,), {"a": None}, frozenset({"a"}), True, True)

    def test_a_class_without_instances_is_refused(self) -> None:
        with pytest.raises(TypeError, match="can't be made"):
            _delta.Plan(type(sys.flags), (), {}, frozenset(), False, False)

    def test_a_struct_that_only_its_constructor_makes_is_refused(self) -> None:
        with pytest.raises(TypeError, match="can't be made"):
            plan(msgspec.defstruct("Alone", ["a"]), {})


class TestKeys:
    """What is equal to a key isn't always one."""

    def test_keys_that_empty_their_list_when_they_are_compared(self) -> None:
        class Evil:
            def __eq__(self, other: object) -> bool:
                keys.clear()
                return False

            def __hash__(self) -> int:
                return 1

        how = plan(Two, {"a": Kind.KEYS, "b": Kind.COUNTS})
        encoder = DeltaEncoder(how)
        encoder.encode(Two(["x"], {"x": 1}))
        encoder.sent()
        keys: list[Any] = [Evil()]
        encoder.encode(Two(keys, {"x": 1}))
        assert len(keys) == 1, "nobody asks what isn't a text"

    def test_keys_that_are_equal_to_those_before_keep_their_types(self) -> None:
        how = plan(Two, {"a": Kind.KEYS, "b": Kind.COUNTS})
        encoder, decoder = DeltaEncoder(how), DeltaDecoder(how)
        for keys in (["x"], [Text("x")], [Chameleon()], ["x"]):
            got = decoder.decode(encoder.encode(Two(keys, {"x": 1})))[0].a  # type: ignore[arg-type]
            encoder.sent()
            assert [type(key) for key in got] == [type(key) for key in keys]

    def test_many_new_keys_after_many_that_ended_do_not_take_long(self) -> None:
        how = plan(Two, {"a": Kind.FINISHED, "b": Kind.COUNTS})
        encoder, decoder = DeltaEncoder(how), DeltaDecoder(how)
        old, new = ([f"{name}{i}" for i in range(100_000)] for name in ("old", "new"))
        for record in (
            Two(set(), dict.fromkeys(old, 1)),
            Two(set(old[1:]), dict.fromkeys([old[0], *new], 1)),
        ):
            began = time.process_time()
            assert decoder.decode(encoder.encode(record))[0] == record  # type: ignore[arg-type]
            encoder.sent()
        # Walking past each ended row for each new one it took 5.
        assert time.process_time() - began < 2


class TestReplies:
    """Somebody's code, called between a reply's fields, changes what the reply is about."""

    how = staticmethod(
        lambda cls: _delta.Plan(
            cls,
            (("a", int(Kind.ORDER), None), ("b", int(Kind.INDEX), None)),
            {"a": None, "b": None},
            frozenset({"a", "b"}),
            True,
            True,
        )
    )

    @pytest.mark.parametrize("change", [list.clear, lambda keys: keys.__setitem__(0, 7)])
    def test_scheduled_keys_that_an_attribute_changes(
        self, change: Callable[[list[Any]], None]
    ) -> None:
        class Changing:
            a: Any

            def __getattr__(self, name: str) -> Any:
                if name != "b":
                    raise AttributeError(name)
                change(scheduled)
                return {b"zzz".decode(): 0, b"yyy".decode(): 1}  # other objects

        first = Two(["xxx"], {"xxx": 0})
        before, sent = self.how(Two).encode_reply(first, (0, ["xxx"], None), dumps)
        _, got_before = self.how(Two).decode_reply(before, (0, ["xxx"], None), loads)
        assert sent is not None
        assert got_before is not None
        scheduled: list[Any] = ["yyy", "zzz", "xxx"]
        record = Changing()
        record.a = ["zzz", "yyy"]
        message, _ = self.how(Changing).encode_reply(record, (1, scheduled, sent), dumps)
        base = (1, ["yyy", "zzz", "xxx"], got_before)
        got, _ = self.how(Two).decode_reply(message, base, loads)
        assert got == Two(["zzz", "yyy"], {"zzz": 0, "yyy": 1})

    def test_an_order_that_is_not_of_texts(self) -> None:
        keys: list[Any] = [1, 2]
        record = Two(keys, {"a": 0, "b": 1})
        message, _ = self.how(Two).encode_reply(record, (1, keys, None), dumps)
        assert self.how(Two).decode_reply(message, (1, keys, None), loads)[0] == record

    @pytest.mark.parametrize(
        "base",
        [
            None,
            5,
            (1, [], 5),
            (1, ["a"], (["a"], b"", None, 4)),
        ],
    )
    def test_a_base_that_is_none(self, base: Any) -> None:
        with pytest.raises(TypeError, match=r"tuple|ReplyOrder"):
            self.how(Two).encode_reply(Two([], {}), base, dumps)
        with pytest.raises(TypeError, match=r"tuple|ReplyOrder"):
            self.how(Two).decode_reply(b"", base, loads)

    def test_scheduled_keys_that_change_when_a_reply_has_been_against_them(self) -> None:
        how, keys = self.how(Two), ["a", "b", "c"]
        record = Two(list(keys), {key: at for at, key in enumerate(keys)})
        sent_to, came_to = list(keys), list(keys)
        message, sent = how.encode_reply(record, (1, sent_to, None), dumps)
        _, came = how.decode_reply(message, (1, came_to, None), loads)
        sent_to.clear()
        came_to[1:] = ["x"]
        message, _ = how.encode_reply(record, (1, keys, sent), dumps)
        assert how.decode_reply(message, (1, keys, came), loads)[0] == record

    def test_an_order_that_somebody_makes(self) -> None:
        with pytest.raises(TypeError):
            type(ReplyOrder.__name__, (ReplyOrder,), {})  # type: ignore[misc]
        with pytest.raises(TypeError):
            ReplyOrder()


class TestWhereFieldsAre:
    def test_fields_in_slots_beside_a_dict(self) -> None:
        @dataclass(slots=True)
        class Slots(One):
            b: int

        sent = Slots(1, 2)
        assert "b" not in vars(sent)
        sent.__dict__.update(x=1, y=2)
        got = carry(sent, plan(Slots, {}))
        assert (got.a, got.b, got.x, got.y) == (1, 2, 1, 2)
        assert "b" not in vars(got)

    def test_as_many_attributes_as_fields_but_others(self) -> None:
        @dataclass
        class Defaults:
            a: int = 7
            b: int = 8

        sent = Defaults()
        del sent.a
        sent.extra = "kept"  # type: ignore[attr-defined]
        assert vars(carry(sent, plan(Defaults, {}))) == {"a": 7, "b": 8, "extra": "kept"}
