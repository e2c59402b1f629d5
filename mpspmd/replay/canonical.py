"""canonical: bytes that are equal for equal values, whatever refers to the same object in them."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from mpspmd.codec.tensors import reduce_tensor
from mpspmd.errors import RankError


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(obj, torch.Tensor):
            return reduce_tensor(obj)
        return NotImplemented


def canonical(value: Any) -> bytes:
    """Of a reply that has been decoded. Of an error: its class and message."""
    if isinstance(value, RankError):
        return repr((value.rank, value.exception, value.message)).encode()
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol=5)
    pickler.fast = True  # no memo: two equal strings are written as one string twice would be
    try:
        pickler.dump(value)
    except ValueError:  # a value that refers to itself needs the memo
        return pickle.dumps(value, protocol=5)
    return stream.getvalue()
