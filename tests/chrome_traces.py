"""What every Chrome trace must have, whatever it shows."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any


def check(trace: dict[str, Any]) -> None:
    """What a viewer needs: no overlap in a track, and an end for each arrow, both within slices."""
    json.loads(json.dumps(trace))
    tracks: dict[int, list[dict[str, Any]]] = defaultdict(list)
    arrows: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["tid"]].append(event)
        elif event["ph"] in "sf":
            assert event["ph"] not in arrows[event["cat"], event["id"]]
            arrows[event["cat"], event["id"]][event["ph"]] = event
    for events in tracks.values():
        events.sort(key=lambda event: event["ts"])
        for one, other in pairwise(events):
            assert one["ts"] + one["dur"] <= other["ts"] + 1e-4
    for pair in arrows.values():
        assert pair.keys() == {"s", "f"}
        assert pair["s"]["ts"] <= pair["f"]["ts"]
        for end in pair.values():
            # To a nanosecond: the times are microseconds, as floating-point numbers.
            assert any(
                event["ts"] - 1e-3 <= end["ts"] <= event["ts"] + event["dur"] + 1e-3
                for event in tracks[end["tid"]]
            )
