"""Output: prints what the ranks write, line by line, with the rank before each line."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import re
import select
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mpspmd.cli.command import tell, write_all
from mpspmd.threads import start_thread

TAIL_LINES = 200
"""How many of a pipe's last lines are kept for the summary of a failure."""

_LINE_ENDS = re.compile(rb"[\r\n]")


class Selection:
    """Lines that contain one of `texts` are also appended to the file `path`, with `prefix` before them."""

    def __init__(self, texts: Sequence[bytes], path: str, prefix: bytes) -> None:
        self.texts, self.prefix = texts, prefix
        # Appended to, because several pipes have the same file.
        self.file: BinaryIO | None = open(path, "ab", buffering=0)  # noqa: SIM115


@dataclass
class _Pipe:
    fd: int
    prefix: bytes
    target: int | None
    copy: BinaryIO | None
    selection: Selection | None
    tail: collections.deque[bytes] = field(
        default_factory=lambda: collections.deque(maxlen=TAIL_LINES)
    )
    unfinished: bytes = b""


class Output:
    """Makes named pipes for processes to write to. A thread reads them and prints the lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: list[_Pipe] = []
        self._changing = threading.Lock()
        self._closing = False
        self._lines_printed = 0
        self._wake_read, self._wake_write = os.pipe()
        self._thread = start_thread(self._run, name="mpspmd-output")

    def open(
        self,
        prefix: bytes,
        target: int | None,
        copy_to: str | None = None,
        selection: Selection | None = None,
    ) -> tuple[str, collections.deque[bytes]]:
        """The path of a new pipe, and a deque that always has the last lines written to it.

        Lines are printed to the descriptor `target`, or nowhere if it is None. The file `copy_to` gets the
        same bytes, without prefixes.
        """
        path = self._folder / f"pipe-{len(self._pipes)}"
        os.mkfifo(path, 0o600)
        # Open for writing too: otherwise reading would report the end whenever no process has it open.
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        copy = open(copy_to, "wb", buffering=0) if copy_to else None  # noqa: SIM115
        pipe = _Pipe(fd, prefix, target, copy, selection)
        with self._changing:
            self._pipes.append(pipe)
        os.write(self._wake_write, b"!")
        return str(path), pipe.tail

    def close(self, patience_s: float | None = None) -> None:
        """Prints what is still in the pipes. The processes that write must have ended.

        Gives up when the reader of our output has taken no line for `patience_s`; None waits for ever.
        A second call does nothing.
        """
        if self._closing:
            return
        self._closing = True
        os.write(self._wake_write, b"!")
        printed = -1
        while self._thread.is_alive() and printed != self._lines_printed:
            printed = self._lines_printed
            self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._closing:
            with self._changing:
                by_fd = {pipe.fd: pipe for pipe in self._pipes}
            poller = select.poll()
            for fd in (self._wake_read, *by_fd):
                poller.register(fd, select.POLLIN)
            for fd, _ in poller.poll():
                if fd == self._wake_read:
                    os.read(fd, 4096)
                else:
                    self._read(by_fd[fd])
        for pipe in self._pipes:
            # As much as it can hold, and no more: a child that outlives its rank may write for ever.
            self._read(pipe, fcntl.fcntl(pipe.fd, fcntl.F_GETPIPE_SZ))
            if pipe.unfinished:
                self._print(pipe, pipe.unfinished + b"\n")
            selected = pipe.selection.file if pipe.selection is not None else None
            for file in (pipe.copy, selected):
                if file is not None:
                    file.close()
            os.close(pipe.fd)

    def _read(self, pipe: _Pipe, size: int = 1 << 16) -> None:
        try:
            data = os.read(pipe.fd, size)
        except BlockingIOError:
            return
        pipe.copy = _copied(pipe.copy, data)
        data = pipe.unfinished + data
        begin = 0
        for end in _LINE_ENDS.finditer(data):
            # A progress bar ends its lines with a carriage return, which doesn't count before a newline.
            if end[0] == b"\n" or data[end.end() : end.end() + 1] not in (b"\n", b""):
                self._print(pipe, data[begin : end.end()])
                begin = end.end()
        pipe.unfinished = data[begin:]

    def _print(self, pipe: _Pipe, line: bytes) -> None:
        pipe.tail.append(line)
        if pipe.target is None:
            return
        selection = pipe.selection
        if selection is not None and any(text in line for text in selection.texts):
            selection.file = _copied(selection.file, selection.prefix + line)
        with contextlib.suppress(OSError):  # a closed terminal or pipe must not stop the ranks
            write_all(pipe.target, pipe.prefix + line)
        self._lines_printed += 1


def _copied(file: BinaryIO | None, data: bytes) -> BinaryIO | None:
    """Appends the data; returns the file, or None after an error: a full disk must not stop the ranks."""
    if file is not None:
        try:
            write_all(file.fileno(), data)
        except OSError as error:
            tell(f"mpspmd-launch: {file.name}: {error.strerror}; it gets no more of the output")
            file.close()
            return None
    return file


def prefix_of(name: str, number: int, *, colour: bool) -> bytes:
    """`[name] `; on a terminal in one of six colours, chosen by `number`."""
    text = f"[{name}]"
    return (f"\x1b[{31 + number % 6}m{text}\x1b[0m " if colour else f"{text} ").encode()
