"""Cores are shared out between all ranks of all engines of a machine."""

from __future__ import annotations

import itertools

import pytest

from mpspmd.vllm.core_shares import reserve, share_out, split, threads_within

# The cores of each NUMA node, by number.
TABLES = {
    "one node": [list(range(16))],
    "two nodes": [list(range(8)), list(range(8, 16))],
    "four nodes": [list(range(first, first + 8)) for first in (0, 8, 16, 24)],
    "eight small nodes": [[2 * node, 2 * node + 1] for node in range(8)],
    "numbers in turn": [list(range(0, 32, 2)), list(range(1, 32, 2))],
    "unequal nodes": [[0, 1, 2], list(range(3, 20))],
    "two cores": [[0, 1]],
    "one core": [[0]],
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("engines", [1, 2, 4])
@pytest.mark.parametrize("table", TABLES)
def test_no_two_ranks_of_any_engines_share_a_core_that_need_not(
    table: str, engines: int, ranks: int
) -> None:
    nodes = TABLES[table]
    cores = set(itertools.chain(*nodes))
    shares = [
        share for engine in range(engines) for share in share_out(nodes, engine, engines, ranks)
    ]
    assert len(shares) == engines * ranks
    assert all(share and set(share) <= cores for share in shares)
    used = [core for share in shares for core in share]
    if len(cores) >= engines * ranks:
        assert len(used) == len(set(used)), "a core is given twice"
    else:
        assert {len(share) for share in shares} == {1}
        assert max(used.count(core) for core in cores) - min(map(used.count, cores)) <= 1


def test_with_a_node_for_each_rank_no_rank_has_cores_of_two() -> None:
    nodes = TABLES["four nodes"]
    assert [share_out(nodes, engine, 2, 2) for engine in range(2)] == [nodes[:2], nodes[2:]]


def test_two_engines_on_two_nodes_have_one_each() -> None:
    nodes = TABLES["two nodes"]
    shares = [share_out(nodes, engine, 2, 2) for engine in range(2)]
    assert shares == [[[0, 1, 2, 3], [4, 5, 6, 7]], [[8, 9, 10, 11], [12, 13, 14, 15]]]


def test_without_neighbours_an_engine_has_all_cores() -> None:
    assert share_out(TABLES["one node"], 0, 1, 1) == [list(range(16))]


@pytest.mark.parametrize(
    ("shares", "count", "kept", "reserved"),
    [
        ([[0, 1, 2], [3, 4, 5]], 2, [[0, 1], [3, 4]], [2, 5]),
        ([[0, 1, 2], [3, 4, 5]], 3, [[0, 1], [3]], [2, 4, 5]),
        ([[0, 1, 2], [3, 4, 5]], 0, [[0, 1, 2], [3, 4, 5]], []),
        ([[0], [1, 2]], 2, [[0], [1]], [2]),
        ([[0], [1]], 2, [[0], [1]], []),
        ([[0, 1]], 1, [[0]], [1]),
    ],
)
def test_cores_are_reserved_evenly_and_every_rank_keeps_one(
    shares: list[list[int]], count: int, kept: list[list[int]], reserved: list[int]
) -> None:
    assert reserve(shares, count) == (kept, reserved)


@pytest.mark.parametrize(("items", "parts"), [(1, 2), (2, 2), (5, 2), (7, 3), (3, 8)])
def test_every_part_has_a_share_and_nothing_is_left(items: int, parts: int) -> None:
    shares = split(list(range(items)), parts)
    assert len(shares) == parts
    assert all(shares)
    assert {item for share in shares for item in share} == set(range(items))


@pytest.mark.parametrize(
    ("quota", "cores", "ranks", "threads"),
    [(None, 8, 2, 8), (16.0, 8, 2, 8), (8.0, 8, 2, 4), (1.5, 8, 1, 1), (1.5, 8, 4, 1), (7.0, 2, 2, 2)],
)  # fmt: skip
def test_ranks_have_no_more_threads_than_their_part_of_a_quota(
    quota: float | None, cores: int, ranks: int, threads: int
) -> None:
    assert threads_within(quota, cores, ranks) == threads
