"""Shares of cores: which rank of which engine gets what. Nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def share_out(
    nodes: Sequence[Sequence[Item]], engine: int, engines: int, ranks: int
) -> list[list[Item]]:
    """The shares of one engine's ranks, in rank order.

    `nodes` are the cores of each NUMA node. All engines have as many ranks, and their shares are disjoint,
    except where there are fewer cores than ranks. With enough nodes each rank has one for itself. Otherwise
    the cores are split, in the order of their nodes, so that most ranks' cores lie on one node.
    """
    cores = [core for node in nodes for core in node]
    first = engine * ranks
    if len(nodes) >= engines * ranks:
        return [list(node) for node in nodes[first : first + ranks]]
    if len(cores) >= engines * ranks:
        return split(split(cores, engines)[engine], ranks)
    return split(cores, engines * ranks)[first : first + ranks]


def split(items: Sequence[Item], parts: int) -> list[list[Item]]:
    """Contiguous shares that differ by one at most; with too few items, each part has one."""
    if len(items) < parts:
        return [[items[part % len(items)]] for part in range(parts)]
    ends = [len(items) * (part + 1) // parts for part in range(parts)]
    return [list(items[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def reserve(shares: list[list[Item]], count: int) -> tuple[list[list[Item]], list[Item]]:
    """Takes `count` cores off the shares for other processes, from the ends and evenly, as vLLM does.

    None, if there are no more than that; and every rank keeps one.
    """
    if sum(map(len, shares)) <= count:
        return shares, []
    ranks = len(shares)
    kept: list[list[Item]] = []
    reserved: list[Item] = []
    for rank, share in enumerate(shares):
        # The last ranks give one more where it doesn't come out even.
        gives = count // ranks + (rank >= ranks - count % ranks)
        end = max(1, len(share) - gives)
        kept.append(share[:end])
        reserved += share[end:]
    return kept, reserved


def threads_within(quota: float | None, cores: int, ranks: int) -> int:
    """How many threads a rank with so many cores should have, if all `ranks` have one quota together."""
    return cores if quota is None else max(1, min(cores, int(quota) // ranks))
