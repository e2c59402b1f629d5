"""python -m benchmarks.timeline TRACE PICTURE [FIRST_STEP [STEPS]]: draws what mpspmd-trace has written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_COLOURS = {
    "step": "#7b9fd4",
    "bubble": "#d9d9d9",
    "waiting": "#d9d9d9",
    "decoding": "#b58ad6",
    "running": "#6fb56f",
    "replying": "#e5a84b",
}


def draw(trace: Path, picture: Path, first: int, steps: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    events: list[dict[str, Any]] = json.loads(trace.read_text())["traceEvents"]
    wanted = range(first, first + steps)
    slices = [e for e in events if e["ph"] == "X" and e["args"]["step"] in wanted]
    if not slices:
        found = [e["args"]["step"] for e in events if e["ph"] == "X"]
        there = f"it has the steps {min(found)} to {max(found)}" if found else "it has none"
        raise SystemExit(f"{trace}: has no step from {first} to {first + steps - 1}; {there}")
    begin = min(e["ts"] for e in slices)
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    figure, axes = pyplot.subplots(figsize=(10, 0.6 + 0.55 * len(names)), dpi=110)
    for e in slices:
        bar = [((e["ts"] - begin) / 1000, e["dur"] / 1000)]
        axes.broken_barh(bar, (e["tid"] - 0.35, 0.7), facecolors=_COLOURS[e["cat"]])
    ends = {e["id"]: e for e in events if e["ph"] == "f" and e["cat"] == "request"}
    world_size = len(names) - 1
    for e in events:
        if e["ph"] == "s" and e["cat"] == "request" and e["id"] // world_size in wanted:
            end = ends[e["id"]]
            points = [((x["ts"] - begin) / 1000, x["tid"]) for x in (e, end)]
            axes.annotate(
                "", points[1], points[0], arrowprops={"arrowstyle": "->", "lw": 0.6, "alpha": 0.6}
            )
    axes.set_yticks(list(names), list(names.values()))
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.legend(
        handles=[Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()],
        ncols=6,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
    )
    figure.tight_layout()
    figure.savefig(picture)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[3:]] or [1]
    draw(Path(sys.argv[1]), Path(sys.argv[2]), numbers[0], (numbers[1:] or [6])[0])
