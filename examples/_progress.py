"""One line of progress: redrawn on a terminal, printed again every few seconds elsewhere."""

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Self

REDRAW_SECONDS = 0.2
REPEAT_SECONDS = 4.0
PLAIN_COLUMNS = 120


class Progress:
    """Show on stderr that `text` is going on and for how long.

    A thread draws the line, so it moves while the caller is blocked in a call. The caller may set
    `text` at any time, from any thread.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.text = ""
        self._started = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        seconds = time.monotonic() - self._started
        self._write(f"{self.title}: {'done' if exc is None else 'not done'}, {seconds:.1f} s", "\n")

    def _draw(self) -> None:
        end, pause = ("", REDRAW_SECONDS) if self._on_terminal else ("\n", REPEAT_SECONDS)
        while True:
            seconds = time.monotonic() - self._started
            text = f" … {self.text}" if self.text else ""
            self._write(f"{self.title}, {seconds:.0f} s{text}", end)
            if self._done.wait(pause):
                return

    def _write(self, line: str, end: str) -> None:
        if self._on_terminal:
            # One column short: a full line would wrap and could not be redrawn.
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write((line if self._on_terminal else line[:PLAIN_COLUMNS]) + end)
        sys.stderr.flush()
