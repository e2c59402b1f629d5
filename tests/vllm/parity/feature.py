"""Feature: a row of the matrix, and the registry of all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a feature runs: which model, on which backend, with which folder of its own."""

    models: Path
    backend: str
    folder: Path


@dataclass(frozen=True)
class Feature:
    """`run(llm, place)` on an engine that rows of the same `engine` may share; without `engine`,
    `run(place)` starts what it needs. `since` is the first version that has it."""

    name: str
    title: str
    engine: str | None
    run: Callable[..., Any]
    since: str = "0.31"
    right: Any = None
    """The value that is right, where one can be told without running anything."""
    last: bool = False
    """Its engine runs it last: after it `mp` may give wrong answers, or the engine is dead."""

    def missing_in(self, version: str) -> str | None:
        """Why it can't run there."""
        if _number(version) < _number(self.since):
            return f"vLLM has it since {self.since}"
        return None


class NotApplicable(Exception):
    """This feature can't be had on this machine, whatever the backend; says why."""


def need_gpu(what: str) -> None:
    """NotApplicable on a machine without one."""
    import torch

    if not torch.cuda.is_available():
        raise NotApplicable(f"{what} needs a GPU")


LIFECYCLE = "lifecycle"
"""The row that has what belongs to an engine, not to one of the rows that share it: start and end."""

FEATURES: dict[str, Feature] = {}
ENGINES: dict[str, Callable[[Path], dict[str, Any]]] = {}
"""By name: what `LLM(…)` is given, beside the backend; called with the folder for models.

ENVIRONMENT in it are variables of this engine, which `LLM` isn't given; None: not set.
"""
ENVIRONMENT = "environment"


def with_lifecycle(names: list[str]) -> list[str]:
    """Which of the rows of one engine has its times, and what it leaves."""
    return [LIFECYCLE] if LIFECYCLE in names else names[:1]


def row(
    name: str,
    title: str,
    engine: str | None = "plain",
    since: str = "0.31",
    right: Any = None,
    last: bool = False,
) -> Any:
    """Registers a function as a row of the matrix."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        FEATURES[name] = Feature(name, title, engine, run, since, right, last)
        return run

    return register


def engine(name: str) -> Any:
    """Registers a function that gives an engine's arguments."""

    def register(arguments: Callable[[Path], dict[str, Any]]) -> Any:
        ENGINES[name] = arguments
        return arguments

    return register


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
