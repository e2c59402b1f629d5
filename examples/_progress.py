"""Progress: that something goes on and for how long, on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

REPEAT_SECONDS = 4.0
UNCHANGED_SECONDS = 20.0


class Progress:
    """A spinner on a terminal, which moves while the caller is blocked; else a line every few seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        self._bar = Bar(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._task = self._bar.add_task(title, total=None)
        self._began = self._last_line = time.monotonic()
        self._printed = ""

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._console.is_terminal:
            self._console.print(self._title)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        seconds = time.monotonic() - self._began
        self._console.print(f"{self._title}: {'not ' if exc else ''}done, {seconds:.1f} s")

    def show(self, text: str) -> None:
        """Says what is being done at the moment. A text that has been printed isn't printed again."""
        line = f"{self._title} … {text}"[:120]
        self._bar.update(self._task, description=line)
        now = time.monotonic()
        changed = line != self._printed
        pause = REPEAT_SECONDS if changed else UNCHANGED_SECONDS
        if not self._console.is_terminal and now - self._last_line >= pause:
            self._last_line, self._printed = now, line
            shown = line if changed else f"{self._title} …"
            self._console.print(f"{shown} ({now - self._began:.0f} s)")
