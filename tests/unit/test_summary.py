"""What is said of recorded steps: the straggler, the bubble, idle and running time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from recorded import MS, made

from mpspmd.observe.records import Records
from mpspmd.observe.straggler import straggler
from mpspmd.observe.summary import bubbles, idles, summarize


def steps(
    n: int, *works: float, barrier: bool = False, marked: bool = False, noise: float = 0.0
) -> Records:
    """`n` steps of ranks that work for so many milliseconds each; with a barrier at the end all finish
    together, and with `marked` they say how long they waited there."""
    choose = random.Random(1)
    now, engine = 10.0, []
    ranks: list[list[tuple[float, float, float, float, float]]] = [[] for _ in works]
    for _ in range(n):
        received = [now + choose.random() * noise for _ in works]
        ready = [
            begin + work + choose.random() * noise
            for begin, work in zip(received, works, strict=True)
        ]
        end = max(ready)
        for rank, (begin, done) in enumerate(zip(received, ready, strict=True)):
            finished = end if barrier else done
            wait = finished - done if marked else 0.0
            ranks[rank].append((begin, begin, finished, finished + 0.01, wait))
        engine.append((now - 0.01, end + 0.02))
        now = end + 0.5
    return made(engine, *ranks)


@pytest.mark.parametrize("works", [(5, 5), (5, 5, 5, 5), (0.01, 0.01), (50, 50, 50)])
@pytest.mark.parametrize("barrier", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
def test_equal_ranks_have_no_straggler(
    works: tuple[float, ...], barrier: bool, noise: float
) -> None:
    assert straggler(steps(200, *works, barrier=barrier, marked=barrier, noise=noise)) is None


@pytest.mark.parametrize("slow", [0, 1, 3])
@pytest.mark.parametrize(("barrier", "marked"), [(False, False), (True, True)])
def test_the_rank_that_is_ready_last_is_the_straggler(
    slow: int, barrier: bool, marked: bool
) -> None:
    works = [20.0] * 4
    works[slow] += 5
    found = straggler(steps(100, *works, barrier=barrier, marked=marked, noise=0.5))
    assert found is not None
    assert (found.rank, found.steps) == (slow, 100)
    assert 0.0045 < found.late_s < 0.0055
    assert found.share > 0.95


def test_behind_a_barrier_that_nobody_marks_no_rank_is_blamed() -> None:
    assert straggler(steps(100, 20, 25, barrier=True)) is None


def test_what_makes_no_difference_to_the_step_is_no_straggler() -> None:
    assert straggler(steps(100, 5, 5.1)) is None  # 0.1 ms: a wake-up
    assert straggler(steps(100, 50, 51)) is None  # 2 %


def test_a_rank_that_is_late_in_six_of_ten_steps_is_no_straggler() -> None:
    def rank(late: range) -> list[tuple[float, float, float, float]]:
        ready = [20 * n + (15.0 if n % 10 in late else 5.0) for n in range(1, 101)]
        return [(end - 5, end - 5, end, end + 1) for end in ready]

    engine = [(20 * n, 20 * n + 16) for n in range(1, 101)]
    assert straggler(made(engine, rank(range(6)), rank(range(6, 10)))) is None
    assert straggler(made(engine, rank(range(8)), rank(range(8, 10)))) is not None


def test_a_few_steps_say_nothing() -> None:
    assert straggler(steps(9, 5, 50)) is None
    assert straggler(steps(10, 5, 50)) is not None


def test_one_rank_has_nobody_to_wait_for_it() -> None:
    assert straggler(steps(100, 5)) is None


def test_ranks_that_record_on_another_machine_are_not_compared() -> None:
    records = steps(30, 5, 10, 5)
    away = replace(records, ranks=(records.ranks[0][:0], *records.ranks[1:]))
    found = straggler(away)
    assert found is not None
    assert found.rank == 1
    assert (
        straggler(replace(records, ranks=(records.ranks[0], *[records.ranks[0][:0]] * 2))) is None
    )


def test_steps_that_not_all_ranks_have_done_do_not_count() -> None:
    records = steps(30, 5, 10)
    records.ranks[1]["finished"][12:] = 0
    found = straggler(records)
    assert found is not None
    assert (found.rank, found.steps) == (1, 12)


def test_bubbles_are_the_times_without_a_request_under_way() -> None:
    engine = [(10, 20), (23, 30), (25, 40), (45, 0), (46, 50), (60, 70)]
    records = made(engine, [])
    # The third was sent while the second was under way. Nobody replies to the fourth.
    assert list(bubbles(records.engine)) == [3 * MS, 5 * MS, 6 * MS, 10 * MS]


def test_a_request_is_behind_no_bubble_before_any_reply_was_taken() -> None:
    assert list(bubbles(made([(10, 0), (20, 30), (34, 40)], []).engine)) == [4 * MS]


def test_idle_is_never_negative_though_the_next_request_is_read_early() -> None:
    assert list(idles(made([], [(10, 11, 20, 21), (19, 25, 30, 31)]).ranks[0])) == [0]


def test_idle_is_the_time_from_the_end_of_a_method_to_the_next_request() -> None:
    records = made([], [(10, 11, 20, 21), (24, 25, 30, 0), (30, 30, 35, 36)])
    assert list(idles(records.ranks[0])) == [4 * MS, 0]


def test_the_summary_has_the_time_of_each_method() -> None:
    rows = [(10, 10, 14, 14, 1), (20, 20, 21, 21), (30, 30, 36, 36, 2), (40, 40, 41, 41)]
    records = made([(9, 15), (19, 22), (29, 37), (39, 49)], rows, rows, methods=("run", "sample"))
    found = summarize(records)
    assert (found.pid, found.steps, found.seconds) == (77, 4, 0.04)
    assert found.steps_per_s == pytest.approx(100)
    run, sample = found.methods
    assert (run.method, run.steps) == ("run", 2)
    assert (run.running_s, run.collective_s) == pytest.approx((0.007, 0.003))
    assert (sample.method, sample.steps, sample.running_s) == ("sample", 2, pytest.approx(0.002))
    assert found.bubble is not None
    assert found.bubble.p50 == pytest.approx(0.004)
    assert [spread.n for spread in found.idle if spread] == [3, 3]


def test_without_any_steps_there_is_nothing_to_say() -> None:
    found = summarize(made([], [], []))
    assert (found.steps, found.steps_per_s, found.bubble, found.idle) == (
        0,
        0.0,
        None,
        (None, None),
    )


def test_only_what_happened_since_then_is_kept() -> None:
    records = steps(10, 5, 5).since(int(steps(10, 5, 5).engine["sent"][7]))
    assert [list(table["step"]) for table in (records.engine, *records.ranks)] == [[8, 9, 10]] * 3
