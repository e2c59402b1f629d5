"""The matrix's verdicts, on a table; and its document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from parity import cells, document
from parity.__main__ import batches
from parity.feature import Feature
from parity.record import Record
from parity.verdict import Verdict, judge

FILES = {"files": ["/dev/shm/x"]}
IDLE, BUSY = {"load": 0.9}, {"load": 5.0}
ERROR = {"error": ("ValueError", "no\nsecond line")}


@pytest.mark.parametrize(
    ("mp", "ours", "kind", "how"),
    [
        ({"value": [1]}, {"value": [1]}, "same", ""),
        ({"value": [1]}, {"value": [2]}, "worse", "other values: [0] is 2, with mp 1"),
        (
            {"value": {"a": [1, {"b": 1}]}},
            {"value": {"a": [1, {"b": 2}]}},
            "worse",
            "other values: a[1].b is 2, with mp 1",
        ),
        ({"value": [1]}, {"value": [1, 2]}, "worse", "other values: it is [1, 2], with mp [1]"),
        ({"value": 1}, ERROR, "worse", "raises ValueError: no"),
        (ERROR, {"value": 1}, "better", "works, where mp raises ValueError: no"),
        (ERROR, {"error": ("ValueError", "why")}, "n. a.", "both raise ValueError: why"),
        (ERROR, {"error": ("ValueError", "why\n\nlog")}, "n. a.", "both raise ValueError: why"),
        (ERROR, {"error": ("OSError", "no")}, "worse", "raises OSError, mp ValueError"),
        (ERROR | FILES, ERROR, "n. a.", "both raise ValueError: no second line"),
        (FILES, {}, "better", "leaves 0 files, mp 1"),
        ({}, FILES, "worse", "leaves 1 files, mp 0"),
        ({"processes": ["7 x"]}, {}, "better", "leaves 0 processes, mp 1"),
        ({"value": 1} | FILES, {"value": 2}, "worse", "other values: it is 2, with mp 1"),
        (IDLE | {"stop_s": 9.0}, IDLE | {"stop_s": 1.0}, "better", "stops in 1.0 s, mp in 9.0 s"),
        (
            IDLE | {"start_s": 30.0},
            IDLE | {"start_s": 61.0},
            "worse",
            "starts in 61.0 s, mp in 30.0 s",
        ),
        (IDLE | {"start_s": 30.0}, IDLE | {"start_s": 45.0}, "same", ""),
        (IDLE | {"stop_s": 0.1}, IDLE | {"stop_s": 1.0}, "same", ""),
        (BUSY | {"stop_s": 9.0}, IDLE | {"stop_s": 1.0}, "same", ""),
        (IDLE | {"start_s": 9.0}, {"start_s": 99.0}, "same", ""),
        ({"not_applicable": "no GPU"}, {"value": 1}, "n. a.", "no GPU"),
        ({"value": 1}, {"not_applicable": "no GPU"}, "n. a.", "no GPU"),
    ],
)
def test_verdict(mp: dict[str, Any], ours: dict[str, Any], kind: Any, how: str) -> None:
    assert judge(Record(**mp), Record(**ours)) == Verdict(kind, how)


def test_values_that_differ_from_run_to_run_with_mp_too_are_the_same() -> None:
    mp, ours = Record(value=1), Record(value=2)
    assert judge(mp, ours, Record(value=3)).kind == "same"
    assert judge(mp, ours, Record(value=1)).kind == "worse"


def test_right_answers_are_better_than_others() -> None:
    right = ["late", [1, 2]]
    assert judge(Record(value=["late", [1, 3]]), Record(value=right), right=right) == Verdict(
        "better", "right answers; mp's are wrong: [1][1] is 3, expected 2"
    )
    assert judge(Record(value=right), Record(value=["late", []]), right=right).kind == "worse"
    assert judge(Record(value=right), Record(value=right), right=right).kind == "same"
    died = Record(error=("EngineDeadError", "x"))
    assert judge(died, Record(value=right), right=right).kind == "better"
    assert judge(Record(value=right), died, right=right).kind == "worse"


def test_the_record_of_an_interrupted_run_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert not Record.is_there(path)
    Record(files=["/dev/shm/x"], unchecked=True).write(path)
    assert not Record.is_there(path)
    Record().write(path)
    assert Record.is_there(path)


def test_an_engine_is_blamed_for_what_it_left_if_that_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "RESULTS", tmp_path)
    paths = [cells.path_of("0.1", "mp", name) for name in ("a", "b")]
    Record(files=["/first"], unchecked=True).write(paths[0])
    Record(files=["/gone", "/left"], processes=["7 x", "8 y"], unchecked=True).write(paths[1])
    cells.note_what_is_left(
        "0.1", "mp", ["a", "b", "not run"], ["/first", "/left", "/new"], ["8 y"], 0.5
    )
    first, second = map(Record.read, paths)
    assert (first.files, first.processes) == (["/first", "/new"], [])
    assert (second.files, second.processes) == (["/left"], ["8 y"])
    assert [first.unchecked, second.unchecked] == [False, False]


def test_rows_of_one_engine_follow_each_other_and_what_breaks_it_comes_last() -> None:
    rows = [
        Feature("breaks", "", "x", print, last=True),
        Feature("y", "", "y", print),
        Feature("alone", "", None, print),
        Feature("x", "", "x", print),
    ]
    assert batches(rows, share=True) == [["x", "breaks", "y"], ["alone"]]
    assert batches(rows, share=False) == [["breaks"], ["y"], ["alone"], ["x"]]


def test_a_cell_that_was_not_run_is_empty_and_a_bar_does_not_end_one() -> None:
    features = {"a": Feature("a", "the a", None, print), "b": Feature("b", "the b", None, print)}
    text = document.write(features, ["0.1", "0.2"], {("a", "0.2"): Verdict("worse", "1|2")}, "here")
    assert "| the a |  | **worse**: 1\\|2 |\n| the b |  |  |\n" in text
    assert document.counts(text) == {"vLLM 0.1": {"empty": 2}, "vLLM 0.2": {"worse": 1, "empty": 1}}


def test_a_cell_that_was_not_run_again_is_kept() -> None:
    features = {"a": Feature("a", "the a", None, print), "b": Feature("b", "the b", None, print)}
    old = {("a", "0.1"): Verdict("same"), ("b", "0.2"): Verdict("worse", "1|2")}
    first = document.write(features, ["0.1", "0.2"], old, "here")
    second = document.write(features, ["0.1", "0.2"], {("a", "0.1"): Verdict("better")}, "", first)
    assert "| the a | **better** |  |\n| the b |  | **worse**: 1\\|2 |\n" in second
