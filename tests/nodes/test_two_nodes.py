"""A run over two nodes does what a run on one machine does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from simulated_nodes import SimulatedNodes, needs_nodes

pytestmark = needs_nodes


@pytest.fixture(scope="module")
def run(two: SimulatedNodes) -> Iterator[Cluster]:
    """Two ranks on each node."""
    with Cluster(two, local=2) as cluster:
        pids = cluster.line()["value"]  # as soon as the engine is there
        assert all(pids)
        yield cluster


def test_every_rank_knows_its_node(run: Cluster) -> None:
    assert run.call("place") == [
        [0, 4, 0, 0, 2],
        [1, 4, 0, 1, 2],
        [2, 4, 1, 0, 2],
        [3, 4, 1, 1, 2],
    ]


def test_one_rank_of_another_node_replies_alone(run: Cluster) -> None:
    assert run.call("execute_model", 5, reply_ranks=3) == [3, 5]


def test_messages_larger_than_the_rings_arrive_whole(run: Cluster) -> None:
    assert run.call("large", 50_000_000) == [50_000_000] * 4
    assert run.call("large replies", 20_000_000) == [20_000_000] * 4


def test_calls_in_flight_reach_all_ranks_in_the_same_order(run: Cluster) -> None:
    sent, wrong, digests = run.call("stream", 1.0)
    assert sent > 16
    assert (wrong, digests) == (0, 1)


def test_texts_hash_alike_on_all_nodes(run: Cluster) -> None:
    assert len(set(run.call("hash", "some text"))) == 1


def test_what_a_rank_of_another_node_raises_reaches_the_caller(run: Cluster) -> None:
    error = run.call("fail_on", 3)
    assert (error["error"], error["rank"]) == ("RankError", 3)
    assert "on purpose" in error["text"]
    assert "in fail_on" in error["text"]
    assert run.call("execute_model", 1, reply_ranks=2) == [2, 1]


def test_what_a_rank_raises_that_nobody_waits_for_is_not_lost(run: Cluster, tmp_path: Path) -> None:
    error = run.call("fail_on", 2, str(tmp_path / "go"), reply_ranks=0)
    (tmp_path / "go").touch()
    assert (error["error"], error["rank"]) == ("RankError", 2)


def test_the_heads_status_page_shows_all_ranks(run: Cluster) -> None:
    pids = run.call("pid")
    stats = run.call("stats")
    assert [[node, pid] for node, pid, _ in stats] == [
        [0, pids[0]],
        [0, pids[1]],
        [1, pids[2]],
        [1, pids[3]],
    ]
    assert run.call("pids")[1:] == pids


def test_a_timeout_shows_where_a_rank_of_another_node_is(run: Cluster, tmp_path: Path) -> None:
    # A busy machine may take longer: then another call shows it.
    for timeout in (0.5, 4.0, 16.0):
        go = tmp_path / f"go-{timeout}"
        error = run.call("wait_on", 3, str(go), timeout=timeout)
        go.touch()
        assert error["error"] == "StepTimeout"
        if "waiting for rank 3\n" in error["text"] and "in wait_on" in error["text"]:
            break
    assert "waiting for rank 3" in error["text"]
    assert "rank 3 on node 1 (pid " in error["text"]
    assert "in wait_on" in error["text"]  # its stack
    assert run.call("execute_model", 1, reply_ranks=3) == [3, 1]


def test_ranks_of_both_nodes_join_one_process_group(run: Cluster) -> None:
    assert run.call("join_group") == [10.0] * 4


def test_a_shutdown_leaves_nothing_on_any_node() -> None:
    with SimulatedNodes(2) as nodes, Cluster(nodes, local=2) as run:
        run.ready()
        assert run.end() == [0, 0]
        assert [node.leftovers() for node in nodes] == [[], []]
