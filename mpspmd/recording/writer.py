"""RecordingWriter: writes a recording, in the engine's process."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from mpspmd.errors import ConfigError
from mpspmd.notice import notice
from mpspmd.recording.layout import CHECKSUM, HEAD, MAGIC, About, Spec, Type
from mpspmd.wire import KIND_STEP

logger = logging.getLogger(__name__)

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_FILES = 10_000
_MOST_PARTS = 512
"""The kernel takes 1,024 parts in one call."""
_COPY_BYTES = 1 << 20

_Identity: TypeAlias = tuple[int, int, int]
"""Device, inode and size of a file."""


class RecordingWriter:
    """Any thread of the engine may write. When the call returns, the record is in the file, and stays there
    if this process is killed. If the disk is full, recording stops, and the run goes on."""

    def __init__(self, path: str, limit_bytes: int, about: About, spec: Spec) -> None:
        """ConfigError if no file can be made there."""
        self._limit = limit_bytes
        # A signal's handler may send a request while its own thread is writing here.
        self._lock = threading.RLock()
        self._is_writing = False
        self._later: list[Callable[[], None]] = []
        self._size = self._crc = 0
        self._is_unfinished = False
        self._at_start = True
        self._wanted = path = os.path.abspath(path)
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise FileExistsError(errno.EEXIST, "there is a folder or a device of that name")
            self.path, self._fd = _create(path, _names(path))
        except OSError as error:
            raise ConfigError(
                f"record_requests={path!r}: must be a file that can be made: {error.strerror}"
            ) from None
        self._earlier: _Identity | None = None
        """The full file that this run has given the suffix `.1`."""
        self._start = (0, 0)
        self._append([MAGIC], len(MAGIC), 0)
        # json writes what is no UTF-8, perhaps in a variable, as an escape; msgspec refuses it.
        self.add(Type.ABOUT, payload=json.dumps(msgspec.to_builtins(about)).encode())
        self.add(Type.SPEC, payload=msgspec.msgpack.encode(spec))
        self._header = self._start
        self._began = self._size
        """How many bytes the file had before the first request of its own."""

    def add(
        self,
        type: Type,
        kind: int = 0,
        rank: int = 0,
        step: int = 0,
        name: str = "",
        payload: Any = b"",
    ) -> None:
        """Writes a record. `payload` is bytes-like, or a list of that."""
        with self._lock:
            parts = payload if isinstance(payload, list) else [payload]
            if self._is_writing:  # a copy: it is written later, when the payload may be gone
                parts = [b"".join(parts)]
            self._write(partial(self._add, type, kind, rank, step, name, parts))

    def _write(self, write: Callable[[], None]) -> None:
        """With the lock. Calls `write`, and then what a signal's handler wanted to write meanwhile."""
        self._later.append(write)
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._later:
                self._later.pop(0)()
        except OSError as error:
            self._stop(error)
        finally:
            self._is_writing = False

    def _add(
        self, type: Type, kind: int, rank: int, step: int, name: str, parts: list[Any]
    ) -> None:
        if self._fd < 0:
            return
        size = sum(memoryview(part).nbytes for part in parts)
        label = name.encode(errors="replace")[:1000]
        now = time.monotonic_ns()
        head = HEAD.pack(type, kind, rank, step, now, size, len(label))
        crc = zlib.crc32(label, zlib.crc32(head, self._crc))
        for part in parts:
            crc = zlib.crc32(part, crc)
        whole = [head + CHECKSUM.pack(crc) + label, *parts]
        self._at_start = self._at_start and not (type == Type.REQUEST and kind & KIND_STEP)
        self._append(whole, len(whole[0]) + size, crc)
        if self._at_start:
            self._start = (self._size, self._crc)

    def _append(self, parts: Sequence[Any], size: int, crc: int) -> None:
        if self._is_unfinished:  # a signal's handler has raised in the middle of the last record
            os.ftruncate(self._fd, self._size)
        self._is_unfinished = True
        if len(parts) > _MOST_PARTS:
            parts = [b"".join(parts)]
        written = os.writev(self._fd, parts)
        if written < size:
            _write_all(self._fd, b"".join(parts)[written:])
        self._size, self._crc = self._size + size, crc
        self._is_unfinished = False

    def is_full(self, n_held: int | None) -> bool:
        """Whether a new file should begin. `n_held`: how many of vLLM's requests the ranks hold; None if
        that isn't known. Half of the limit is enough when they hold none: a replay can begin there. But
        a quarter of the limit must have been added to what the file begins with."""
        enough = self._limit // 2 if n_held == 0 else self._limit
        return self._size > max(enough, self._began + self._limit // 4)

    def rotate(self, step: int) -> None:
        """Begins a new file with what the ranks were started with, and the requests before the first step.
        The full file gets the suffix `.1`. `step` is the number of the next request."""
        self.add(Type.END, step=step, payload=b"a new file has begun")
        with self._lock:
            self._write(self._begin_new_file)
        self.add(Type.GAP, step=step)

    def _begin_new_file(self) -> None:
        full = self._fd
        if full < 0:
            return
        self._set_aside()
        path, fd = _create(self.path, itertools.chain([self.path], _names(self._wanted)))
        try:
            start = self._start if self._start[0] <= self._limit // 2 else self._header
            for at in range(0, start[0], _COPY_BYTES):
                _write_all(fd, os.pread(full, min(_COPY_BYTES, start[0] - at), at))
        except BaseException:
            os.close(fd)
            raise
        self.path, self._fd, (self._size, self._crc) = path, fd, start
        self._began = self._size
        os.close(full)

    def _set_aside(self) -> None:
        """Gives the full file the suffix `.1`, in place of this run's earlier one.

        Renames nothing if another program's file is at one of the two names.
        """
        this, aside = _identity(os.fstat(self._fd)), f"{self.path}.1"
        if _file_at(self.path) == this and _file_at(aside) in (None, self._earlier):
            os.rename(self.path, aside)
            self._earlier = this

    def close(self) -> None:
        """The run has ended."""
        self.add(Type.END, payload=b"the run has ended")
        with self._lock:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _stop(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size)
        self._close()
        notice(
            logger.warning,
            "requests are recorded no more, and the run goes on: %s: %s",
            self.path,
            error.strerror or error,
        )


def _names(path: str) -> Iterator[str]:
    """`path`, `path-2`, `path-3` and so on, but no name whose `.1` exists: another run's full file."""
    for number in range(1, _MOST_FILES):
        name = path if number == 1 else f"{path}-{number}"
        if not os.path.lexists(f"{name}.1"):
            yield name


def _create(wanted: str, names: Iterable[str]) -> tuple[str, int]:
    """Makes a file with the first name that is free; replaces nothing. OSError if that fails."""
    for name in names:
        try:
            fd = os.open(name, _FLAGS, 0o600)
        except FileExistsError:
            continue
        if name != wanted:
            words = "requests are recorded in %s, because %s is there already"
            notice(logger.warning, words, name, wanted)
        return name, fd
    raise FileExistsError(errno.EEXIST, f"there are {_MOST_FILES} of them already")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _identity(about: os.stat_result) -> _Identity:
    """Tells a file from all others. The size counts: a new file may get the inode of a removed one."""
    return about.st_dev, about.st_ino, about.st_size


def _file_at(path: str) -> _Identity | None:
    """None if there is none."""
    try:
        return _identity(os.lstat(path))
    except FileNotFoundError:
        return None
