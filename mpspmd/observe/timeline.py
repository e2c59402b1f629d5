"""Timeline: records as a Chrome trace, which Perfetto and chrome://tracing show. Data in, events out."""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import Any, TypeAlias

from mpspmd.observe.records import Records

Event: TypeAlias = dict[str, Any]

# Names of chrome://tracing's colours. Perfetto chooses a colour for each name of a slice.
_COLOURS = {
    "waiting": "grey",
    "bubble": "grey",
    "decoding": "rail_load",
    "running": "thread_state_running",
    "replying": "rail_response",
    "step": "rail_animation",
}


def chrome_trace(records: Records) -> dict[str, Any]:
    """Track 0 is the engine's, and track r + 1 is rank r's. The slices of a track don't overlap. Arrows go
    from each request to the ranks, and from their replies to the engine. Times are those of
    time.monotonic(), in microseconds."""
    tracks = ["engine", *(f"rank {rank}" for rank in range(len(records.ranks)))]
    events = [_about(records.pid, 0, "process_name", name=f"mpspmd engine {records.pid}")]
    for number, name in enumerate(tracks):
        events.append(_about(records.pid, number, "thread_name", name=name))
        events.append(_about(records.pid, number, "thread_sort_index", sort_index=number))
    engine = _Track(records.pid, 0)
    _draw_engine(engine, records)
    events += engine.events
    for rank in range(len(records.ranks)):
        track = _Track(records.pid, rank + 1)
        _draw_rank(track, records, rank)
        events += track.events
        for step, received in track.began.items():
            number = step * len(records.ranks) + rank
            if step in engine.began:
                sent = engine.began[step]
                events += _arrow("request", number, engine, sent, track, max(sent, received))
            if step in track.ended and step in engine.ended:
                replied, taken = track.ended[step], engine.ended[step]
                events += _arrow("reply", number, track, replied, engine, max(replied, taken))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _about(pid: int, track: int, what: str, **args: Any) -> Event:
    return {"ph": "M", "pid": pid, "tid": track, "name": what, "args": args}


def _arrow(
    name: str, number: int, source: _Track, begin: int, target: _Track, end: int
) -> list[Event]:
    both = {"cat": name, "name": name, "id": number, "pid": source.pid}
    return [
        both | {"ph": "s", "tid": source.track, "ts": begin / 1000},
        both | {"ph": "f", "bp": "e", "tid": target.track, "ts": end / 1000},
    ]


class _Track:
    """The slices of one track, from left to right."""

    def __init__(self, pid: int, track: int) -> None:
        self.pid, self.track = pid, track
        self.events: list[Event] = []
        self.end = 0
        """Where the last slice ends."""
        self.began: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        """By step, where the arrows of its request and of its reply touch this track: within slices."""

    def draw(self, kind: str, name: str, begin: int, end: int, step: int, **args: Any) -> None:
        """Draws what isn't covered yet, if anything."""
        begin = max(begin, self.end)
        if end <= begin:
            return
        place = {"ph": "X", "pid": self.pid, "tid": self.track, "cat": kind, "name": name}
        times = {"ts": begin / 1000, "dur": (end - begin) / 1000, "cname": _COLOURS[kind]}
        self.events.append(place | times | {"args": {"step": step} | args})
        self.end = end


def _draw_engine(track: _Track, records: Records) -> None:
    """Each step from its request, or from the end of the step before if that was later, to its last reply;
    between two steps the bubble, in which nothing was under way."""
    rows = records.engine[records.engine["sent"] > 0]
    methods = _methods(records)
    finished = _finished(records)
    for row, after in zip_longest(rows, rows[1:]):
        step, sent, last = int(row["step"]), int(row["sent"]), int(row["last"])
        if track.end:
            track.draw("bubble", "bubble", track.end, sent, step)
        if not last:
            # Nobody was asked to reply, or nobody has.
            last = finished.get(step, records.at_ns)
            last = last if after is None else min(last, int(after["sent"]))
        else:
            track.ended[step] = last - 1
        track.began[step] = sent
        name = methods.get(step) or f"step {step}"
        size = int(row["bytes_out"])
        track.draw("step", name, sent, last, step, bytes=size, replies=int(row["replies"]))


def _draw_rank(track: _Track, records: Records, rank: int) -> None:
    rows = records.ranks[rank]
    now = records.at_ns
    for row, after in zip_longest(rows, rows[1:]):
        step, method = int(row["step"]), records.method(rank, int(row["method"]))
        names = ("received", "started", "finished", "replied")
        received, started, finished, replied = (int(row[name]) for name in names)
        if track.end:
            track.draw("waiting", "waiting", track.end, received, step)
        # A reply thread may send a reply while the next method runs already.
        next_ns = now if after is None else int(after["received"]) or now
        args: dict[str, Any] = {"bytes": int(row["bytes_in"])}
        if row["collective"]:
            args["collective_ms"] = int(row["collective"]) / 1e6
        # What has not ended goes on until the records end.
        if received:
            track.draw("decoding", "decoding", received, started or finished or now, step)
        if started:
            name = method or f"step {step}"
            track.draw("running", name, started, finished or now, step, **args)
        if finished:
            track.draw("replying", "replying", finished, min(replied, next_ns), step)
        if received and track.end > received:
            track.began[step] = received
            if replied:
                track.ended[step] = max(received, track.end - 1)


def _methods(records: Records) -> dict[int, str]:
    """By step."""
    return {
        int(row["step"]): records.method(rank, int(row["method"]))
        for rank, table in enumerate(records.ranks)
        for row in table
    }


def _finished(records: Records) -> dict[int, int]:
    """When the last rank had finished each step that all ranks have finished."""
    finished: dict[int, list[int]] = defaultdict(list)
    for table in records.ranks:
        for row in table[table["finished"] > 0]:
            finished[int(row["step"])].append(int(row["finished"]))
    n_ranks = len(records.ranks)
    return {step: max(times) for step, times in finished.items() if len(times) == n_ranks}
