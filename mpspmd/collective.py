"""Collective: data only. Each rank imports it when it starts: keep it small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Collective:
    """A collective of one rank: torch.distributed has recorded it, or mpspmd has counted it."""

    group: str
    """The process group."""
    number: int
    """It counts the group's collectives. All ranks of a group must call the same ones, in one order."""
    kind: str
    sizes: str
    """The sizes of its inputs."""
    done: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of {self.group}, sizes {self.sizes}"
