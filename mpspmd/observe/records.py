"""Records: what the engine and each rank did in the last steps, as the recorder's memory says."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct("<QIIQQI")
_HEADER_BYTES = _NAMES_BYTES = 128
"""What csrc/ring/layout.h puts on lines of their own: the header, and the number of a track's names."""
_MAGIC = int.from_bytes(b"mspmRecd", "little")
_METHODS, _METHOD_BYTES = 64, 64
_RECORD_BYTES = 64

Table: TypeAlias = npt.NDArray[Any]
"""A structured array, with one row for each step."""

_START = [("sequence", "<u4"), ("method", "<u4"), ("step", "<i8")]
_ENGINE = np.dtype(
    [
        *_START,
        *((name, "<i8") for name in ("sent", "first", "last", "bytes_out", "bytes_in", "replies")),
    ]
)
_RANK = np.dtype(
    [
        *_START,
        *((name, "<i8") for name in ("received", "started", "finished", "replied")),
        *(("bytes_in", "<u4"), ("bytes_out", "<u4"), ("collective", "<i8")),
    ]
)


class NoRecords(ValueError):
    """The bytes aren't those of a recorder of this version."""


@dataclass(frozen=True)
class Records:
    """Rows are in the order of steps. Times are nanoseconds of time.monotonic(); 0: it hasn't happened."""

    pid: int
    """The engine's."""
    engine: Table
    """step; sent; first and last: when the first and the last of the replies so far were taken out of their
    rings; bytes_out of the request; bytes_in and the number of the replies."""
    ranks: tuple[Table, ...]
    """step; received, started, finished, replied; bytes_in, bytes_out; collective: nanoseconds of the
    method in `ctx.collective()`; method: an index into `methods`, 0 if it isn't known."""
    methods: tuple[tuple[str, ...], ...]
    """Of each rank."""
    at_ns: int = 0
    """When they were read: what has not ended goes on until then."""

    @property
    def newest_ns(self) -> int:
        """The latest time in any record; 0 if there is none."""
        columns = [self.engine["sent"], self.engine["last"]]
        for rank in self.ranks:
            columns += [rank[name] for name in ("received", "started", "finished", "replied")]
        return max((int(column.max()) for column in columns if len(column)), default=0)

    def since(self, ns: int) -> Records:
        """The steps of which something happened at this time or later, and those that haven't ended."""
        ranks = tuple(
            rank[(np.maximum(rank["replied"], rank["finished"]) >= ns) | (rank["finished"] == 0)]
            for rank in self.ranks
        )
        under_way = [rank["step"][rank["finished"] == 0] for rank in ranks]
        is_recent = np.maximum(self.engine["sent"], self.engine["last"]) >= ns
        goes_on = np.isin(self.engine["step"], np.concatenate([*under_way, []]))
        return replace(self, engine=self.engine[is_recent | goes_on], ranks=ranks)

    def method(self, rank: int, index: int) -> str:
        """A long name was cut to 63 bytes."""
        return self.methods[rank][index] if index < len(self.methods[rank]) else ""


def parse(data: bytes, at_ns: int) -> Records:
    """The records in the bytes of a recorder's segment, which were read at `at_ns`. NoRecords."""
    if len(data) < _HEADER_BYTES:
        raise NoRecords(f"{len(data)} bytes are too few for a recorder")
    magic, _, n_tracks, n_steps, _, pid = _HEADER.unpack_from(data)
    names_bytes = _NAMES_BYTES + _METHODS * _METHOD_BYTES
    begin = _HEADER_BYTES + n_tracks * names_bytes
    needed = begin + n_tracks * n_steps * _RECORD_BYTES
    if magic != _MAGIC or n_tracks < 2 or len(data) < needed:
        raise NoRecords(f"{len(data)} bytes are no recorder of {n_tracks} tracks")
    tables = [
        _table(data, begin + track * n_steps * _RECORD_BYTES, n_steps, _RANK if track else _ENGINE)
        for track in range(n_tracks)
    ]
    methods = tuple(
        _names(data, _HEADER_BYTES + track * names_bytes) for track in range(1, n_tracks)
    )
    return Records(pid, tables[0], tuple(tables[1:]), methods, at_ns)


def _table(data: bytes, offset: int, n_steps: int, kind: np.dtype[Any]) -> Table:
    table = np.frombuffer(data, kind, n_steps, offset)
    # An odd number: its writer was killed while it wrote.
    whole = np.flatnonzero((table["step"] > 0) & (table["sequence"] % 2 == 0))
    return table.take(whole[np.argsort(table["step"][whole])])


def _names(data: bytes, offset: int) -> tuple[str, ...]:
    (n,) = struct.unpack_from("<I", data, offset)
    begin = offset + _NAMES_BYTES
    names = [
        data[at : at + _METHOD_BYTES].partition(b"\0")[0].decode(errors="ignore")
        for at in range(begin, begin + min(n, _METHODS) * _METHOD_BYTES, _METHOD_BYTES)
    ]
    return ("", *names)
