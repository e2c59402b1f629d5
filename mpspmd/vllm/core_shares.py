"""Shares of cores: which rank of which engine gets which cores. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def share_out(
    nodes: Sequence[Sequence[Item]], engine: int, engines: int, ranks: int
) -> list[list[Item]]:
    """The cores of each rank of one engine, in rank order.

    `nodes` are the cores of each NUMA node. All engines have the same number of ranks. Shares are disjoint,
    unless there are fewer cores than ranks. With enough nodes each rank gets a whole node. Otherwise the
    cores are split in the order of their nodes, so that most ranks' cores lie on one node.
    """
    cores = [core for node in nodes for core in node]
    first = engine * ranks
    if len(nodes) >= engines * ranks:
        return [list(node) for node in nodes[first : first + ranks]]
    if len(cores) >= engines * ranks:
        return split(split(cores, engines)[engine], ranks)
    return split(cores, engines * ranks)[first : first + ranks]


def split(items: Sequence[Item], parts: int) -> list[list[Item]]:
    """Contiguous parts whose sizes differ by 1 at most. With too few items, parts share them, one each."""
    if len(items) < parts:
        return [[items[part % len(items)]] for part in range(parts)]
    ends = [len(items) * (part + 1) // parts for part in range(parts)]
    return [list(items[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def reserve(shares: list[list[Item]], count: int) -> tuple[list[list[Item]], list[Item]]:
    """The shares without `count` cores, and these cores, which are for other processes.

    Takes them evenly from the ends of the shares, as vLLM does, and leaves each rank at least one. Takes
    none if there aren't more than `count`.
    """
    if sum(map(len, shares)) <= count:
        return shares, []
    ranks = len(shares)
    kept: list[list[Item]] = []
    reserved: list[Item] = []
    for rank, share in enumerate(shares):
        # If `count` can't be divided, the last ranks give one more.
        gives = count // ranks + (rank >= ranks - count % ranks)
        end = max(1, len(share) - gives)
        kept.append(share[:end])
        reserved += share[end:]
    return kept, reserved


def threads_within(quota: float | None, cores: int, ranks: int) -> int:
    """How many threads a rank should have. It has `cores`, and all `ranks` share one CPU quota."""
    return cores if quota is None else max(1, min(cores, int(quota) // ranks))
