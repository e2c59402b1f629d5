"""Results: what a run of channel_latency has found, as in its JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from benchmarks.latency import Latency, median
from benchmarks.machine import Machine
from benchmarks.peers.peer import Peer, Repliers


class Row(TypedDict):
    """One transport with one number of ranks. Times are medians over the rounds, in µs."""

    transport: str
    version: str
    ranks: int
    reply: Repliers
    size_bytes: int
    mean_us: float
    p50_us: float
    p99_us: float
    messages: int  # counted ones, in all rounds together


class Rounds(TypedDict):
    """What a row's figures are the medians of, in the order of the rounds."""

    transport: str
    ranks: int
    rounds: list[dict[str, float]]


class Missing(TypedDict):
    """A transport that was asked for and couldn't be measured."""

    name: str
    why: str


class Results(TypedDict):
    benchmark: str
    machine: Machine
    rounds: int
    messages_per_round: int
    results: list[Row]
    per_round: list[Rounds]
    missing: list[Missing]


def row(
    peer: type[Peer],
    ranks: int,
    reply: Repliers,
    size_bytes: int,
    rounds: Sequence[Latency],
    messages: int,
) -> Row:
    """The medians of `rounds`, with `messages` in each."""
    figures = median(rounds)
    return {
        "transport": peer.name,
        "version": peer.version,
        "ranks": ranks,
        "reply": reply,
        "size_bytes": size_bytes,
        "mean_us": round(figures.mean_us, 3),
        "p50_us": round(figures.p50_us, 3),
        "p99_us": round(figures.p99_us, 3),
        "messages": len(rounds) * messages,
    }


def per_round(peer: type[Peer], ranks: int, rounds: Sequence[Latency]) -> Rounds:
    return {
        "transport": peer.name,
        "ranks": ranks,
        "rounds": [dataclasses.asdict(latency) for latency in rounds],
    }
