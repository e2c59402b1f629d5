"""Record: what a feature did on one backend of one version, as JSON keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Record:
    """`error` is (type, text); `not_applicable` says why the feature can't run here on any backend."""

    value: Any = None
    error: tuple[str, str] | None = None
    not_applicable: str | None = None
    warnings: list[str] = field(default_factory=list)
    load: float | None = None
    """Of each core, before the start: on a busy machine times say nothing."""
    start_s: float | None = None
    stop_s: float | None = None
    files: list[str] = field(default_factory=list)
    """In /dev/shm and the temp folder, after the end."""
    processes: list[str] = field(default_factory=list)
    """That are still there 10 s after the end."""
    unchecked: bool = False
    """Nobody has looked yet which of these are still there after the end of the process that wrote them."""

    @classmethod
    def read(cls, path: Path) -> Record:
        made = cls(**json.loads(path.read_text()))
        made.error = tuple(made.error) if made.error else None  # type: ignore[assignment]
        return made

    @classmethod
    def is_there(cls, path: Path) -> bool:
        """Whole: the one of an interrupted run isn't."""
        return path.exists() and not cls.read(path).unchecked

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))
