"""The pictures of benchmarks show what was measured, and nothing empty or ambiguous."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pictures, timeline
from benchmarks.peers import CLASSES
from benchmarks.pictures import COLOURS, draw
from benchmarks.results import new_results


def test_every_line_of_a_picture_has_a_colour_of_its_own() -> None:
    for names in (set(CLASSES), {"mpspmd-delta", "pickle5", "flat-tuple"}, {"mp", "mp-spmd"}):
        assert len({COLOURS[name] for name in names}) == len(names)


@pytest.mark.parametrize(
    ("ranks", "sizes", "panels"),
    [((1, 2), (64,), ["64 B"]), ((1,), (64, 4096), ["ranks: 1"]), ((1,), (64,), ["64 B"]),
     ((1, 2), (64, 4096), ["64 B", "ranks: 1"])],
)  # fmt: skip
def test_a_picture_of_round_trips_has_no_panel_with_a_single_point(
    ranks: tuple[int, ...],
    sizes: tuple[int, ...],
    panels: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(pictures, "_label", lambda axes, title, x, y: titles.append(title))
    results = new_results("channel_latency", 1, 1, {})
    results["results"] = [
        {"transport": "mpspmd", "ranks": n, "size_bytes": size, "mean_us": 1.0 * n}
        for n in ranks
        for size in sizes
    ]
    draw(results, tmp_path / "round-trips.png")
    assert titles == panels
    assert (tmp_path / "round-trips.png").stat().st_size > 1000


def test_a_timeline_of_steps_that_are_not_in_the_trace_says_which_are(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    steps = [{"ph": "X", "name": "step", "args": {"step": number}} for number in range(700, 764)]
    trace.write_text(json.dumps({"traceEvents": steps}))
    with pytest.raises(SystemExit, match="has no step from 30 to 34; it has the steps 700 to 763"):
        timeline.draw(trace, tmp_path / "picture.png", 30, 5)
