"""Records for tests: made of a few times, and not by an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpspmd.observe import records
from mpspmd.observe.records import Records

MS = 1_000_000


def made(
    engine: Sequence[tuple[float, float]],
    *ranks: Sequence[tuple[float, float, float, float] | tuple[float, float, float, float, float]],
    methods: Sequence[str] = ("execute_model",),
) -> Records:
    """Of the engine, when each step was sent and its last reply taken. Of each rank, when a request was
    received, its method started and finished, when it was replied to, and perhaps how long it was in
    collectives. In milliseconds; 0: it hasn't happened."""
    table = np.zeros(len(engine), records._ENGINE)
    for i, (sent, last) in enumerate(engine):
        table[i]["step"], table[i]["sent"] = i + 1, round(sent * MS)
        table[i]["first"] = table[i]["last"] = round(last * MS)
    tables = tuple(_rank(rank, len(methods)) for rank in ranks)
    found = Records(77, table, tables, (("", *methods),) * len(ranks))
    return replace(found, at_ns=found.newest_ns)


def _rank(rows: Sequence[Sequence[float]], n_methods: int) -> Any:
    table = np.zeros(len(rows), records._RANK)
    for i, row in enumerate(rows):
        table[i]["step"], table[i]["method"] = i + 1, i % n_methods + 1
        names = ("received", "started", "finished", "replied", "collective")
        for name, value in zip(names, row, strict=False):
            table[i][name] = round(value * MS)
    return table
