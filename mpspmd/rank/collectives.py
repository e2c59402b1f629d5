"""The last collectives of this rank: what torch.distributed has recorded, and what is counted here."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from mpspmd.collective import Collective

_DUMPS = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
"""Of torch._C._distributed_c10d: NCCL's, and since PyTorch 2.13 that of all backends. Which there are
depends on how torch was built."""
_MAX_GROUPS = 8

_counted: list[CountedGroup] = []


class CountedGroup:
    """The last collective of a group of which torch.distributed knows nothing. One thread calls these
    methods, and any thread may read."""

    def __init__(self, name: str) -> None:
        """`name` is the same on all ranks of the group, and another one for each other group."""
        self._name = name
        # One tuple, so that a reader never sees half of a change.
        self._last: tuple[int, str, Sequence[int], bool] = (0, "", (), True)
        _counted.append(self)

    def begin(self, kind: str, sizes: Sequence[int]) -> None:
        """This rank calls the group's next collective. `sizes` are those of its input."""
        self._last = (self._last[0] + 1, kind, sizes, False)

    def end(self) -> None:
        """The collective has ended."""
        self._last = (*self._last[:3], True)

    @property
    def last(self) -> Collective:
        number, kind, sizes, done = self._last
        return Collective(self._name, number, kind, json.dumps([list(sizes)]), done)


def last_collectives() -> tuple[Collective, ...]:
    """The last collective of each process group, as far as any is known. Any thread; doesn't import
    torch."""
    counted = (group.last for group in list(_counted))
    return (*_recorded(), *(each for each in counted if each.number))


def _recorded() -> tuple[Collective, ...]:
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
