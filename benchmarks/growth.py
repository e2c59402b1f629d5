"""Growth: how a figure grows with the number of ranks, as a line and as a power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Growth(TypedDict):
    """y = a + b·n by least squares, with the share of variance that it explains; and k of y ~ n^k."""

    a: float
    b: float
    r2: float
    exponent: float


def fit(ns: Sequence[int], ys: Sequence[float]) -> Growth:
    """`ns` must have two different values or more. The exponent is that of a line through the logarithms.

    The squares are relative to y; otherwise the largest n alone would decide.
    """
    import numpy as np  # here, because rank processes import this module too and don't need it

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
