"""The Chrome trace: slices that nest, and arrows that begin and end in slices."""

from __future__ import annotations

from typing import Any

from chrome_traces import check
from recorded import made

from mpspmd.observe.timeline import chrome_trace


def slices_of(trace: dict[str, Any], track: int) -> list[dict[str, Any]]:
    found = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == track]
    return sorted(found, key=lambda event: event["ts"])


def test_a_step_is_drawn_from_its_request_to_its_reply() -> None:
    ranks = [[(11, 12, 20, 21), (31, 31, 40, 41)], [(11, 11, 24, 25), (31, 32, 39, 40)]]
    trace = chrome_trace(made([(10, 26), (30, 42)], *ranks))
    check(trace)
    engine = [(e["cat"], e["ts"], e["dur"]) for e in slices_of(trace, 0)]
    assert engine == [("step", 10e3, 16e3), ("bubble", 26e3, 4e3), ("step", 30e3, 12e3)]
    first = [(e["cat"], e["name"], e["ts"], e["dur"]) for e in slices_of(trace, 1)]
    assert first == [
        ("decoding", "decoding", 11e3, 1e3),
        ("running", "execute_model", 12e3, 8e3),
        ("replying", "replying", 20e3, 1e3),
        ("waiting", "waiting", 21e3, 10e3),
        ("running", "execute_model", 31e3, 9e3),
        ("replying", "replying", 40e3, 1e3),
    ]
    arrows = [e for e in trace["traceEvents"] if e["ph"] == "s"]
    assert sorted((e["cat"], e["tid"]) for e in arrows) == (
        [("reply", 1), ("reply", 1), ("reply", 2), ("reply", 2), *[("request", 0)] * 4]
    )
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"]
    assert names == ["engine", "rank 0", "rank 1"]


def test_steps_that_overlap_are_drawn_one_after_the_other() -> None:
    engine = [(10.0, 20.0), (11.0, 30.0), (12.0, 25.0)]
    # The reply thread of rank 0 sends the first reply while the second method runs.
    rank = [(11.0, 11.0, 15.0, 19.0), (15.5, 15.5, 24.0, 29.0), (24.5, 24.6, 28.0, 24.8)]
    trace = chrome_trace(made(engine, rank))
    check(trace)
    replying = [(e["ts"], e["dur"]) for e in slices_of(trace, 1) if e["cat"] == "replying"]
    assert replying == [(15e3, 0.5e3), (24e3, 0.5e3)]


def test_no_arrow_goes_back_though_a_request_is_received_before_its_sender_reads_the_clock() -> (
    None
):
    check(chrome_trace(made([(10.5, 20)], [(10, 11, 18, 19)])))


def test_what_never_ended_goes_on_to_the_end_of_the_records() -> None:
    trace = chrome_trace(
        made([(10, 20), (30, 0)], [(11, 11, 18, 19), (31, 32, 0, 0)], [(11, 11, 50, 51)])
    )
    check(trace)
    last = slices_of(trace, 1)[-1]
    assert (last["cat"], last["ts"], last["dur"], last["args"]["step"]) == (
        "running",
        32e3,
        19e3,
        2,
    )
    assert slices_of(trace, 0)[-1]["dur"] == 21e3


def test_a_step_that_nobody_answers_ends_with_the_ranks() -> None:
    trace = chrome_trace(made([(10, 0), (100, 110)], [(11, 11, 20, 0), (101, 101, 105, 106)]))
    check(trace)
    first = slices_of(trace, 0)[0]
    assert (first["ts"], first["dur"]) == (10e3, 10e3)


def test_no_steps_make_an_empty_trace() -> None:
    check(chrome_trace(made([], [])))
