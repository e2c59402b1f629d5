"""Dump: what the janitor has kept of a run that failed. processes/janitor_process.py writes it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from mpspmd._ring import StatusPage
from mpspmd.errors import DumpError
from mpspmd.naming import rank_name
from mpspmd.observe.records import NoRecords, Records, parse
from mpspmd.processes.janitor_process import DUMP_MAGIC
from mpspmd.transport.segment import open_memory


@dataclass(frozen=True)
class Dump:
    about: dict[str, Any]
    """pid; time in seconds since 1970, and monotonic in those of time.monotonic(), when it was written;
    cause; versions; report: the stall report if it was made for one."""
    records: Records
    places: tuple[str, ...]
    """What each rank was doing, in words."""


def read_dump(path: str) -> Dump:
    """DumpError if the file can't be read, is no dump, or is cut off."""
    try:
        with open(path, "rb") as file:
            magic = file.read(len(DUMP_MAGIC))
            # Any other file may be large, and some devices have no end.
            data = file.read() if magic == DUMP_MAGIC else b""
    except OSError as error:
        raise DumpError(f"{path}: {error.strerror or error}") from None
    if magic != DUMP_MAGIC:
        raise DumpError(f"{path}: no dump of this version of mpspmd; it begins with {magic[:16]!r}")
    line, _, rest = data.partition(b"\n")
    try:
        about = json.loads(line)
        sizes = {name: int(about["bytes"][name]) for name in ("status", "recorder")}
        int(about["pid"]), str(about["cause"])
        now_ns = int(float(about["monotonic"]) * 1e9)
        time.localtime(about["time"])
    except (ArithmeticError, ValueError, KeyError, TypeError, OSError) as error:
        raise DumpError(f"{path}: its header can't be read: {error}") from None
    if len(rest) != sum(sizes.values()):
        raise DumpError(
            f"{path}: {sum(sizes.values())} bytes should follow the header: {len(rest)} do"
        )
    try:
        records = parse(rest[sizes["status"] :], now_ns)
        places = _places(rest[: sizes["status"]], float(about["monotonic"]))
    except (NoRecords, ValueError) as error:
        raise DumpError(f"{path}: {error}") from None
    return Dump(about, records, places)


def _places(status: bytes, now: float) -> tuple[str, ...]:
    fd = open_memory("mpspmd-dump")
    try:
        os.write(fd, status)
        page = StatusPage(fd)
    finally:
        os.close(fd)
    return tuple(_place(page, rank, now) for rank in range(page.n_ranks))


def _place(page: StatusPage, rank: int, now: float) -> str:
    line = page.line(rank).snapshot()
    step = f" (step {line['step']})" if line["step"] else ""
    ended = "; its process had ended" if line["has_died"] else ""
    doing = {"running": f"in {line['method']}", "waiting": "waiting for a request after"}
    where = doing.get(line["phase"], line["phase"])
    since_s = max(0.0, now - line["since"])
    who = rank_name(rank, line["pid"], line["node"])
    return f"{who}: {where}{step} for {since_s:.3f} s{ended}"
