"""canonical: bytes that are equal for equal values, whatever refers to the same object in them."""

from __future__ import annotations

import io
from typing import Any

from mpspmd.codec.objects import Pickler
from mpspmd.errors import RankError


def canonical(value: Any) -> bytes:
    """Of a reply that has been decoded. Of an error: its class and message."""
    if isinstance(value, RankError):
        return repr((value.rank, value.exception, value.message)).encode()
    try:
        # Without the memo two equal strings are written as one string twice.
        return _pickled(value, has_memo=False)
    except ValueError:  # a value that refers to itself needs the memo
        return _pickled(value, has_memo=True)


def _pickled(value: Any, *, has_memo: bool) -> bytes:
    stream = io.BytesIO()
    pickler = Pickler(stream, protocol=5)
    pickler.fast = not has_memo
    pickler.dump(value)
    return stream.getvalue()
