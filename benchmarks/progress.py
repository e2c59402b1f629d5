"""Progress: how far a benchmark is, on stderr."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_REPEAT_S = 3.0


class Progress:
    """A bar on a terminal, else a line every few seconds.

    Nothing is drawn within a step, because a thread that draws would take the interpreter's lock from the
    code that is measured.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps)
        self._last_line = -math.inf

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One of the steps. It is shown before it begins."""
        if not self._console.is_terminal:
            self._write_line(what)
        self._bar.update(self._task, description=what, refresh=True)
        yield
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def _write_line(self, what: str) -> None:
        now = time.monotonic()
        if now - self._last_line >= _REPEAT_S:
            self._last_line = now
            self._console.print(f"[{self._done}/{self._steps}] {what}", markup=False)
