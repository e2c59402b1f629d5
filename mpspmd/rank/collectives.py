"""What torch.distributed has recorded of this rank's collectives."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from mpspmd.collective import Collective

_DUMPS = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
"""Of torch._C._distributed_c10d: NCCL's, and since PyTorch 2.13 that of all backends. Which there are
depends on how torch was built."""
_MAX_GROUPS = 8


def last_collectives() -> tuple[Collective, ...]:
    """The last collective of each process group; empty unless torch.distributed has recorded any. Any
    thread; doesn't import torch."""
    c10d: Any = sys.modules.get("torch._C._distributed_c10d")
    if c10d is None or "torch.distributed" not in sys.modules:
        return ()
    entries: list[dict[str, Any]] = []
    for name in _DUMPS:
        # Neither a private function that changes nor anything that it returns may break a report.
        with contextlib.suppress(Exception):
            entries += json.loads(getattr(c10d, name)()).get("entries", [])
    return newest(entries)


def newest(entries: list[dict[str, Any]]) -> tuple[Collective, ...]:
    """The last entry of each process group, in the order in which they were begun."""
    last: dict[str, tuple[int, Collective]] = {}
    for entry in entries:
        with contextlib.suppress(LookupError, TypeError, ValueError):
            if entry["is_p2p"]:
                continue
            name, description = (*map(str, entry["process_group"]), "")[:2]
            found = Collective(
                group=f"{description or 'group'} ({name})",
                number=int(entry["collective_seq_id"]),
                kind=str(entry["profiling_name"]),
                sizes=json.dumps(entry["input_sizes"]),
                done=bool(entry["retired"]) or entry["state"] == "completed",
            )
            began = int(entry["record_id"])
            if found.group not in last or last[found.group][0] < began:
                last[found.group] = began, found
    newest_last = sorted(last.values(), key=lambda each: each[0])
    return tuple(found for _, found in newest_last[-_MAX_GROUPS:])
