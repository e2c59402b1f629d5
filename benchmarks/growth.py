"""Growth: how a figure grows with the number of ranks, as a line and as a power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Growth(TypedDict):
    """y = a + b·n by least squares, with its share of explained variance; and the k of y ~ n^k."""

    a: float
    b: float
    r2: float
    exponent: float


def fit(ns: Sequence[int], ys: Sequence[float]) -> Growth:
    """At least two different `ns`. The exponent is of a line through the logarithms.

    The line's squares are relative to y: otherwise the largest n alone would decide.
    """
    import numpy as np  # every rank's process imports its tool's modules, and needs none of it

    n, y = np.asarray(ns, dtype=float), np.asarray(ys, dtype=float)
    b, a = np.polyfit(n, y, 1, w=1 / y)
    relative = (a + b * n - y) / y
    spread = (y - y.mean()) / y
    total = float((spread**2).sum())
    exponent = np.polyfit(np.log(n), np.log(y), 1)[0]
    return {
        "a": round(float(a), 4),
        "b": round(float(b), 4),
        "r2": round(1 - float((relative**2).sum()) / total, 4) if total else 1.0,
        "exponent": round(float(exponent), 3),
    }
