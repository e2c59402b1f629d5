"""Totals of what is recorded: each step counts once, whenever it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recorded import made

from mpspmd.observe.metrics import BUCKETS_S, Histogram, Meter, Totals
from mpspmd.observe.records import Records
from mpspmd.observe.stats import EngineStats, RankStats

NONE = made([], [], [])
COUNTERS = ("bytes_in", "bytes_out", "requests", "replies", "spins", "yields", "parks")


def stats(steps: int, count: int = 0) -> EngineStats:
    counters = dict.fromkeys(COUNTERS, count)
    ranks = tuple(
        RankStats(n, 1, "waiting", "m", steps, 0.0, 0.0, 0, 0, counters=counters) for n in range(2)
    )
    return EngineStats(1, steps, 1 << 20, ranks)


def steps(n: int, first: int = 1) -> Records:
    """Each step takes 8 ms on the ranks, 10 ms in all, and 5 ms later the next one begins."""
    engine = [(15 * i, 15 * i + 10) for i in range(1, n + 1)]
    rank = [(15 * i + 1, 15 * i + 1, 15 * i + 9, 15 * i + 9.5) for i in range(1, n + 1)]
    records = made(engine, rank, rank)
    records.engine["replies"] = 2
    kept = [table[table["step"] >= first] for table in (records.engine, *records.ranks)]
    return replace(records, engine=kept[0], ranks=tuple(kept[1:]))


def n_of(histogram: Histogram) -> int:
    return int(histogram.counts.sum())


def test_each_step_counts_once_however_often_it_is_read() -> None:
    totals = Totals()
    meter = Meter(totals, stats(0), 0, NONE)
    for n in (3, 3, 7, 8):
        meter.take(stats(n), 0, steps(n))
    assert totals.steps == 8
    found = totals.step_s["execute_model"]
    assert (n_of(found), found.total_s) == (8, pytest.approx(0.08))
    assert found.counts[BUCKETS_S.index(0.01)] == 8
    assert (n_of(totals.bubble_s), totals.bubble_s.total_s) == (7, pytest.approx(0.035))
    for rank in (0, 1):
        running = totals.running_s[rank, "execute_model"]
        assert (n_of(running), running.total_s) == (8, pytest.approx(0.064))
        waiting = totals.waiting_s[rank]
        assert (n_of(waiting), waiting.total_s) == (7, pytest.approx(0.049))
    assert totals.missed == 0


def test_what_was_done_before_counts_for_nothing() -> None:
    totals = Totals()
    meter = Meter(totals, stats(5, 50), 2, steps(5))
    meter.take(stats(6, 57), 3, steps(6))
    assert (totals.steps, totals.late_replies, totals.counters[1, "parks"]) == (1, 1, 7)
    assert n_of(totals.step_s["execute_model"]) == 1


def test_a_total_never_gets_smaller() -> None:
    totals = Totals()
    meter = Meter(totals, stats(0), 0, NONE)
    meter.take(stats(1, 7), 0, steps(1))
    meter.take(stats(2, 3), 0, steps(2))
    assert totals.counters[0, "parks"] == 7


def test_a_step_that_goes_on_is_counted_when_it_is_done() -> None:
    totals = Totals()
    meter = Meter(totals, stats(0), 0, NONE)
    under_way = steps(4)
    under_way.ranks[1]["finished"][3] = under_way.ranks[1]["replied"][3] = 0
    under_way.engine["replies"][3] = 1
    meter.take(stats(4), 0, under_way)
    assert n_of(totals.step_s["execute_model"]) == 3
    assert n_of(totals.running_s[0, "execute_model"]) == 4
    assert n_of(totals.running_s[1, "execute_model"]) == 3
    meter.take(stats(5), 0, steps(5))
    assert n_of(totals.step_s["execute_model"]) == 5
    assert n_of(totals.running_s[1, "execute_model"]) == 5


def test_a_step_whose_replies_are_not_all_taken_is_not_done() -> None:
    totals = Totals()
    meter = Meter(totals, stats(0), 0, NONE)
    records = steps(2)
    records.engine["replies"][1] = 1
    meter.take(stats(2), 0, records)
    assert n_of(totals.step_s["execute_model"]) == 1


def test_steps_that_were_replaced_before_they_were_read_are_missed() -> None:
    totals = Totals()
    meter = Meter(totals, stats(2), 0, steps(2))
    meter.take(stats(10), 0, steps(10, first=7))
    assert totals.missed == 4
    assert n_of(totals.step_s["execute_model"]) == 4


def test_too_many_methods_count_as_other() -> None:
    totals = Totals()
    names = [f"method {n}" for n in range(60)]
    engine = [(15 * i, 15 * i + 10) for i in range(1, 61)]
    rank = [(15 * i + 1, 15 * i + 1, 15 * i + 9, 15 * i + 9.5) for i in range(1, 61)]
    records = made(engine, rank, methods=names)
    records.engine["replies"] = 1
    one = replace(stats(60), ranks=stats(60).ranks[:1])
    meter = Meter(totals, replace(one, steps=0), 0, made([], []))
    meter.take(one, 0, records)
    assert len(totals.running_s) <= 31
    assert n_of(totals.step_s["other"]) == 30


def test_the_straggler_has_its_seconds_and_the_others_have_none() -> None:
    engine = [(30 * i, 30 * i + 20) for i in range(1, 31)]
    ranks = [
        [(30 * i + 1, 30 * i + 1, 30 * i + 9 + more, 30 * i + 19) for i in range(1, 31)]
        for more in (0, 5)
    ]
    meter = Meter(Totals(), stats(0), 0, NONE)
    late = meter.take(stats(30), 0, made(engine, *ranks))
    assert late == {0: 0.0, 1: pytest.approx(0.005)}
    assert meter.take(stats(30), 0, NONE) == {0: 0.0, 1: 0.0}
