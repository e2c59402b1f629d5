"""Aims: the figures that the project wants, and whether a run of the suite has reached them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.results import Results, Row
from benchmarks.table import Column, text

COLUMNS: list[Column] = [
    text("aim", "aim"),
    text("wanted", "wanted"),
    text("found", "found"),
    text("", "reached"),
]

_Runs = Mapping[str, Results]


class _NotMeasured(Exception):
    """A row that an aim needs is missing."""


def reached(runs: _Runs) -> list[Row]:
    """A row for each aim whose figures have been measured."""
    rows = []
    for aim in _AIMS:
        try:
            rows.append(aim(runs))
        except _NotMeasured:
            continue
    return rows


def _figure(runs: _Runs, run: str, key: str, who: str, **where: Any) -> float:
    """The figure `key` of the transport or backend `who`."""
    for row in runs[run]["results"] if run in runs else ():
        if who in (row.get("transport"), row.get("backend")) and all(
            row.get(name) == value for name, value in where.items()
        ):
            return float(row[key])
    raise _NotMeasured


def _row(aim: str, wanted: str, found: str, met: bool) -> Row:
    return {"aim": aim, "wanted": wanted, "found": found, "reached": "yes" if met else "**no**"}


def _ratio_row(aim: str, factor: float, ratio: float, figures: str) -> Row:
    return _row(
        aim,
        f"{factor:g}×",  # noqa: RUF001
        f"{ratio:.1f}× ({figures})",  # noqa: RUF001
        ratio >= factor,
    )


def _faster(
    run: str, key: str, peer: str, factor: float, what: str, **where: Any
) -> Callable[[_Runs], Row]:
    """We are `factor` times as good as the peer."""

    def aim(runs: _Runs) -> Row:
        ours, its = (_figure(runs, run, key, name, **where) for name in ("mpspmd", peer))
        ratio = its / ours if key != "gb_per_s" else ours / its
        unit = "GB/s" if key == "gb_per_s" else "µs"
        return _ratio_row(
            f"{what}, n={where['ranks']}, against `{peer}`",
            factor,
            ratio,
            f"{ours:,.1f} and {its:,.1f} {unit}",
        )

    return aim


def _above_the_limit(transport: str, limit_us: float) -> Callable[[_Runs], Row]:
    def aim(runs: _Runs) -> Row:
        ours, least = (
            _figure(runs, "round-trips", "mean_us", name, ranks=1, size_bytes=64)
            for name in (transport, "c-pingpong")
        )
        return _row(
            f"mean round trip of `{transport}` above the C ping-pong's, n=1",
            f"at most {limit_us:g} µs",
            f"{ours - least:.2f} µs ({ours:.2f} and {least:.2f})",
            ours - least <= limit_us,
        )

    return aim


def _at_most(
    run: str, key: str, limit: float, unit: str, what: str, **where: Any
) -> Callable[[_Runs], Row]:
    def aim(runs: _Runs) -> Row:
        found = _figure(runs, run, key, "mpspmd", **where)
        return _row(what, f"at most {limit:g} {unit}", f"{found:.2f} {unit}", found <= limit)

    return aim


def _linear(runs: _Runs) -> Row:
    two, eight = (
        _figure(runs, "round-trips", "mean_us", "mpspmd", ranks=n, size_bytes=64) for n in (2, 8)
    )
    p99 = _figure(runs, "round-trips", "p99_us", "mpspmd", ranks=8, size_bytes=64)
    return _row(
        "mean round trip with 8 ranks, against 4 times that with 2",
        "at most 3×",  # noqa: RUF001
        f"{eight / (4 * two):.1f}× ({eight:,.0f} and {two:,.1f} µs; p99 {p99:,.0f} µs)",  # noqa: RUF001
        eight <= 12 * two,
    )


def _cheaper(
    run: str, key: str, ours: str, peer: str, factor: float, what: str, **where: Any
) -> Callable[[_Runs], Row]:
    """In steady decode the peer's figure is `factor` times ours."""

    def aim(runs: _Runs) -> Row:
        mine, its = (
            _figure(runs, run, key, name, scenario="steady", **where) for name in (ours, peer)
        )
        unit = "B" if key == "bytes" else "µs"
        figures = f"{mine:,.0f} and {its:,.0f} {unit}"
        return _ratio_row(f"{what}, against `{peer}`", factor, its / mine, figures)

    return aim


def _codec(key: str, batch: int, direction: str, factor: float) -> Callable[[_Runs], Row]:
    what = "bytes" if key == "bytes" else "encoding and decoding, p50"
    return _cheaper(
        "step-codec", key, "mpspmd-delta", "pickle5", factor,
        f"a {direction} of {batch:,} steady requests, {what}",
        batch=batch, direction=direction,
    )  # fmt: skip


def _overhead(batch: int) -> Callable[[_Runs], Row]:
    return _cheaper(
        "step-overhead", "p50_us", "mp-spmd", "mp", 8,
        f"a whole step with workers that return at once, TP 2, {batch:,} requests",
        batch=batch, tp=2,
    )  # fmt: skip


def _growth(runs: _Runs) -> Row:
    large, small = (
        sum(
            _figure(
                runs, "step-codec", "p50_us", "mpspmd-delta",
                scenario="steady", batch=batch, direction=direction,
            )
            for direction in ("request", "reply")
        )
        for batch in (4096, 1024)
    )  # fmt: skip
    return _row(
        "a step of 4,096 steady requests, encoded and decoded, against one of 1,024",
        "at most 4.5×",  # noqa: RUF001
        f"{large / small:.1f}× ({large:,.0f} and {small:,.0f} µs)",  # noqa: RUF001
        large <= 4.5 * small,
    )


def _tokens(tp: int, requests: int, least: float) -> Callable[[_Runs], Row]:
    def aim(runs: _Runs) -> Row:
        share = _figure(runs, "vllm", "vs_mp", "mp-spmd", tp=tp, concurrency=requests)
        return _row(
            f"vLLM with a tiny model, TP {tp}, {requests} at once: share of `mp`'s tokens/s",
            f"{least:g}",
            f"{share:.3f}",
            share >= least,
        )

    return aim


def _share_of_mp(key: str, most: float, what: str) -> Callable[[_Runs], Row]:
    def aim(runs: _Runs) -> Row:
        share = _figure(runs, "start-stop", key, "mp-spmd", tp=2)
        return _row(
            f"vLLM with a tiny model, TP 2: time to {what}, as a share of `mp`'s",
            f"at most {most:.2f}",
            f"{share:.3f}",
            share <= most,
        )

    return aim


def _over_nodes(key: str, size: int, factor: float) -> Callable[[_Runs], Row]:
    """A step over two nodes, with one rank on the other one: the peer's figure is `factor` times ours."""

    def aim(runs: _Runs) -> Row:
        ours, its = (
            _figure(runs, "nodes", key, name, what="step", size=size, ranks="remote")
            for name in ("mpspmd", _MQ)
        )
        what, unit = ("p50", "µs") if key == "p50_us" else ("bytes on the wire", "B")
        return _ratio_row(
            f"a step over two nodes, {size:,} requests, {what}, against `{_MQ}`",
            factor,
            its / ours,
            f"{ours:,.0f} and {its:,.0f} {unit}",
        )

    return aim


def _above_bare_zmq(runs: _Runs) -> Row:
    ours, least = (
        _figure(runs, "nodes", "p50_us", name, what="bytes", size=64, ranks="remote")
        for name in ("mpspmd", "zmq-curve")
    )
    return _row(
        "a round trip of 64 bytes over two nodes above that of a bare ZeroMQ pair with CURVE, p50",
        "at most 60 µs",
        f"{ours - least:.0f} µs ({ours:.0f} and {least:.0f})",
        ours - least <= 60,
    )


def _alike_with_more_ranks(runs: _Runs) -> Row:
    one, two = (
        _figure(runs, "nodes", "wire_bytes", "mpspmd", what="step", size=1024, ranks=ranks)
        for ranks in ("remote", "two-remote")
    )
    return _row(
        "bytes of a step of 1,024 requests over two nodes, with 2 ranks on the other node, against 1",
        "at most 1.02×",  # noqa: RUF001
        f"{two / one:.3f}× ({two:,.0f} and {one:,.0f} B)",  # noqa: RUF001
        two <= 1.02 * one,
    )


_TRIP = "mean round trip of 64 bytes"
_PACED = "a message every 5 ms, p50"
_MQ = "vllm-messagequeue"

_AIMS: tuple[Callable[[_Runs], Row], ...] = (
    *(
        _faster("round-trips", "mean_us", _MQ, factor, _TRIP, ranks=n, size_bytes=64)
        for n, factor in ((1, 10), (2, 8), (4, 8))
    ),
    *(
        _faster("round-trips", "mean_us", "ray-graph", 5, _TRIP, ranks=n, size_bytes=64)
        for n in (1, 2, 4)
    ),
    _faster("round-trips", "mean_us", "iceoryx2", 1, _TRIP, ranks=1, size_bytes=64),
    _above_the_limit("mpspmd-raw", 1.2),
    _above_the_limit("mpspmd", 3),
    _faster("paced", "p50_us", _MQ, 3, _PACED, ranks=2, interval_ms=5),
    _at_most("paced", "rank_cpu_pct", 15, "%", "a rank's CPU at 5 ms, n=2", ranks=2, interval_ms=5),
    _at_most(
        "paced", "rank_cpu_pct", 12, "%", "a rank's CPU at 20 ms, n=2", ranks=2, interval_ms=20
    ),
    _at_most("idle", "engine_cpu_pct", 0.2, "%", "the engine's CPU in 10 s of silence", ranks=2),
    _at_most("idle", "rank_cpu_pct", 0.2, "%", "a rank's CPU in 10 s of silence", ranks=2),
    _at_most("idle", "engine_switches_per_s", 5, "/s", "the engine's context switches", ranks=2),
    _at_most("idle", "rank_switches_per_s", 5, "/s", "a rank's context switches", ranks=2),
    _linear,
    _faster("tensors", "gb_per_s", _MQ, 3, "64 MiB tensors", ranks=4, size_bytes=64 << 20),
    *(
        _codec("p50_us", batch, direction, factor)
        for batch, factor in ((1, 1), (256, 6), (1024, 10))
        for direction in ("request", "reply")
    ),
    *(
        _codec("bytes", batch, direction, factor)
        for batch in (256, 1024)
        for direction, factor in (("request", 50), ("reply", 8))
    ),
    _growth,
    *(_overhead(batch) for batch in (1, 256, 1024)),
    *(_over_nodes("p50_us", size, factor) for size, factor in ((1, 1), (256, 3), (1024, 3))),
    *(_over_nodes("wire_bytes", size, 100) for size in (256, 1024)),
    _above_bare_zmq,
    _alike_with_more_ranks,
    *(
        _tokens(tp, requests, 1.0 if requests <= 8 else 0.99)
        for tp in (1, 2)
        for requests in (1, 8, 64, 256)
    ),
    _share_of_mp("start_vs_mp", 1.0, "start"),
    _share_of_mp("stop_vs_mp", 1 / 3, "stop"),
)
