"""Recording: a recording that has been opened to be read."""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from mpspmd.errors import RecordingError
from mpspmd.recording.layout import CHECKSUM, HEAD, MAGIC, About, Record, Spec, Type

_TYPES = frozenset(Type)
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Contents:
    """What one reading of the whole file has shown."""

    requests: int
    """How many can be read, and were sent to the ranks."""
    records: int
    """How many records of any type can be read."""
    unsent: frozenset[int]
    """The numbers of the records, from 0, whose requests weren't sent."""
    error: RecordingError | None
    """Why nothing behind them can be read; None if the file is whole."""


def _open_without_waiting(path: str, flags: int) -> int:
    """If it is a pipe, open() would wait for whoever writes."""
    return os.open(path, flags | os.O_NONBLOCK)


class Recording:
    """A context manager. One thread at a time."""

    def __init__(self, path: str) -> None:
        """RecordingError: it can't be read, it is no recording, or another user may have written it."""
        self.path = path
        try:
            self._file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror or error}") from None
        try:
            self._size = self._check_owner()
            if self._file.read(len(MAGIC)) != MAGIC:
                raise RecordingError(f"{path}: no recording of this version of mpspmd")
            records = self.records()
            try:
                self.about = msgspec.convert(json.loads(next(records).payload), About)
                self.spec: Spec = msgspec.msgpack.decode(next(records).payload, type=Spec)
            except (msgspec.DecodeError, ValueError, StopIteration) as error:
                raise RecordingError(f"{path}: its beginning can't be read: {error}") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def _check_owner(self) -> int:
        """The file's size. A replay runs code that the file names."""
        about = os.fstat(self._file.fileno())
        why = ""
        if not stat.S_ISREG(about.st_mode):
            why = "it is no regular file"
        elif about.st_uid not in (0, os.geteuid()):
            why = f"it belongs to user {about.st_uid}, and must belong to you or root"
        elif about.st_mode & _OTHERS_MAY_WRITE:
            why = f"others may write to it (mode {about.st_mode & 0o777:03o}); chmod go-w"
        if why:
            raise RecordingError(f"{self.path}: not read, because a replay runs its code: {why}")
        return about.st_size

    def scan(self) -> Contents:
        """Reads the whole file, and runs no code of it."""
        sent, records, newest, unsent = 0, 0, (-1, 0), set[int]()
        error: RecordingError | None = None
        try:
            for record in self.records():
                if record.type == Type.REQUEST:
                    sent, newest = sent + 1, (record.step, records)
                # The engine doesn't send a request that it can't record. That request is not in the file,
                # and the newest one there has another step.
                elif record.type == Type.UNSENT and record.step == newest[0]:
                    unsent.add(newest[1])
                records += 1
        except RecordingError as trouble:
            error = trouble
        return Contents(sent - len(unsent), records, frozenset(unsent), error)

    def records(self) -> Iterator[Record]:
        """All records, from the beginning. RecordingError behind the last one that can be read, unless the
        recording ended in order."""
        at, crc, requests = len(MAGIC), 0, 0
        is_ended = False
        self._file.seek(at)
        while at < self._size:
            head = self._file.read(HEAD.size + CHECKSUM.size)
            if len(head) < HEAD.size + CHECKSUM.size:
                raise self._broken("has been cut off", requests)
            type, kind, rank, step, time_ns, size, name_size = HEAD.unpack_from(head)
            at += len(head) + size + name_size
            # A file that is being written may have grown.
            if at > self._size and at > os.fstat(self._file.fileno()).st_size:
                raise self._broken("has been cut off", requests)
            name, payload = self._file.read(name_size), self._file.read(size)
            crc = zlib.crc32(head[: HEAD.size], crc)
            crc = zlib.crc32(payload, zlib.crc32(name, crc))
            if crc != CHECKSUM.unpack_from(head, HEAD.size)[0]:
                raise self._broken("has been changed", requests)
            if type not in _TYPES:
                raise self._broken(f"has a record of the unknown type {type}", requests)
            requests += type == Type.REQUEST
            is_ended = type == Type.END
            # The writer cuts a long name, perhaps in the middle of a character.
            label = name.decode(errors="replace")
            yield Record(Type(type), kind, rank, step, time_ns, label, payload)
        if not is_ended:
            raise RecordingError(
                f"{self.path}: it has no end after {requests} request(s): it has been cut off, or its "
                "engine runs, was killed, or had no space left",
                requests,
            )

    def _broken(self, how: str, requests: int) -> RecordingError:
        return RecordingError(
            f"{self.path}: it {how} behind the first {requests} request(s)", requests
        )
