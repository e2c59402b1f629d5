"""python -m benchmarks.timeline TRACE PICTURE [FIRST [STEPS]]: draws what mpspmd-trace has written."""

from __future__ import annotations

import argparse
import json
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
    parser = argparse.ArgumentParser(
        prog="timeline", description="Draws steps of a timeline that mpspmd-trace has written."
    )
    parser.add_argument("trace", type=Path, help="the file of mpspmd-trace")
    parser.add_argument("picture", type=Path, help="what is written (.png, .svg)")
    parser.add_argument("first", type=int, nargs="?", default=1, help="the first step (1)")
    parser.add_argument("steps", type=int, nargs="?", default=6, help="how many (6)")
    draw(**vars(parser.parse_args()))
