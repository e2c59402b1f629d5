"""Results: the figures of a run of a tool, as in its JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypeAlias, TypedDict

from benchmarks.growth import Growth
from benchmarks.machine import Machine, this_machine
from benchmarks.peers import load
from benchmarks.peers.peer import Peer
from benchmarks.progress import Progress
from benchmarks.signals import uninterrupted

Row: TypeAlias = dict[str, Any]
"""One transport in one configuration: `transport`, `version`, `ranks` and the tool's own keys. The tools
that compare vLLM's backends have `backend` instead of `transport`. Figures are medians over the rounds."""


class Missing(TypedDict):
    """A transport that couldn't be measured, or not with so many ranks."""

    name: str
    why: str


class Results(TypedDict):
    benchmark: str
    machine: Machine
    rounds: int
    messages_per_round: int
    settings: dict[str, Any]  # the options of the run
    results: list[Row]
    per_round: list[Row]  # the figures of each round, of which the results are medians
    missing: list[Missing]
    fits: NotRequired[
        dict[str, Growth]
    ]  # how each figure grows with the number of ranks; of scaling


def save(results: Results, path: Path | None) -> None:
    """Writes JSON, if there is a path. Tools save after each number of ranks; they may be interrupted."""
    if path is not None:
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def new_results(benchmark: str, rounds: int, messages: int, settings: dict[str, Any]) -> Results:
    return {
        "benchmark": benchmark,
        "machine": this_machine(),
        "rounds": rounds,
        "messages_per_round": messages,
        "settings": settings,
        "results": [],
        "per_round": [],
        "missing": [],
    }


def load_peers(
    names: Sequence[str], missing: list[Missing], progress: Progress
) -> list[type[Peer]]:
    """The peers that can be imported; the others are added to `missing`."""
    peers = []
    for name in names:
        with progress.step(f"importing {name}"):
            try:
                # Some imports abort the process when a signal's handler raises in the middle.
                with uninterrupted():
                    peers.append(load(name))
            except ModuleNotFoundError as error:
                missing.append({"name": name, "why": f"not installed: {error}"})
            except Exception as error:
                missing.append({"name": name, "why": f"{type(error).__name__}: {error}"})
    return peers
