"""vLLM over two nodes: mp-spmd generates what mp does, and fails as one run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import workload
from leftovers import complaints
from node_servers import Follower, Head, Setup, ended, leftovers
from record_steps import make_adapter
from simulated_nodes import SimulatedNodes, ending, needs_nodes, pid_on_node

pytestmark = needs_nodes

HERE = Path(__file__).parent

START_S = 1200
"""A start has twice as many processes as on one node, and each imports vLLM."""

Tokens = list[list[int]]


@pytest.fixture
def setup(model: Path, tmp_path: Path) -> Iterator[Setup]:
    with SimulatedNodes(2) as nodes:
        yield Setup(nodes, model, tmp_path)


@contextlib.contextmanager
def running(setup: Setup) -> Iterator[tuple[Head, Follower]]:
    """A server on two nodes, which answers."""
    follower, head = Follower(setup, 1), Head(setup)
    with ending(follower.process, head.process):
        head.wait_until_healthy(START_S)
        yield head, follower


def generate_with(setup: Setup) -> Tokens:
    """The server may have one node or two."""
    followers = [Follower(setup, 1)] if len(setup.nodes) > 1 else []
    head = Head(setup)
    with ending(head.process, *(follower.process for follower in followers)):
        head.wait_until_healthy(START_S)
        return generate(head)


def generate(head: Head) -> Tokens:
    return head.stream_all(workload.prompts(), workload.sampling)


def rank_on(head_or_follower: Head | Follower) -> psutil.Process:
    """The process of the node's one rank."""
    (rank,) = [
        each for each in head_or_follower.node.processes() if "Worker" in " ".join(each.cmdline())
    ]
    return rank


def assert_nothing_is_left(setup: Setup) -> None:
    assert [leftovers(node) for node in setup.nodes] == [[], []]


def test_tp_2_over_two_nodes_generates_what_mp_does_on_one_and_ctrl_c_leaves_nothing(
    setup: Setup, reference: list[dict[str, Any]]
) -> None:
    with running(setup) as (head, follower):
        assert generate(head) == [output["tokens"] for output in reference]
        head.interrupt()
        ended(head, 90)
        # vLLM's front end kills its engine at Ctrl-C, and for the other node a killed engine is a failure.
        assert ended(follower, 90) == 1
        assert_nothing_is_left(setup)
        assert complaints(head.log.read_text() + follower.log.read_text()) == []


@pytest.mark.slow
@pytest.mark.timeout(2 * START_S + 600)
@pytest.mark.parametrize(
    ("tp", "pp"),
    [
        pytest.param(2, 1, id="tp 2 between the nodes"),
        pytest.param(1, 2, id="pp 2 between the nodes"),
        pytest.param(2, 2, id="tp 2 in each node and pp 2 between them"),
    ],
)
def test_two_nodes_generate_what_mp_does(setup: Setup, tp: int, pp: int) -> None:
    ours = dataclasses.replace(setup, tp=tp, pp=pp)
    generated = generate_with(ours)
    for node in setup.nodes:
        node.kill_all()
    # On the CPU `mp` takes it that each node has one rank. Several it has on one node only.
    nodes = setup.nodes if tp * pp == len(setup.nodes) else setup.nodes[:1]
    assert generated == generate_with(dataclasses.replace(ours, backend="mp", nodes=nodes))


@pytest.mark.slow
@pytest.mark.timeout(2 * START_S + 600)
def test_an_llm_on_the_head_has_lora_and_callables_as_with_mp(setup: Setup) -> None:
    adapter = make_adapter(setup.model, setup.folder / "adapter")
    generated: dict[str, Any] = {}
    for backend in ("mp-spmd", "mp"):  # `mp` leaves a semaphore on the other node
        out = setup.folder / f"{backend}.json"
        on_backend = dataclasses.replace(setup, backend=backend, more=("--enable-lora",))
        follower = Follower(on_backend, 1)
        script = (HERE / "generate_on_head.py", setup.model, backend, setup.nodes[0].address)
        head = setup.nodes[0].start(
            sys.executable, *script, adapter, out, env=on_backend.environment(0)
        )
        with ending(follower.process, head):
            assert head.wait(2 * START_S) == 0
            if backend == "mp-spmd":
                assert ended(follower, 90) == 0
                assert_nothing_is_left(setup)
        generated[backend] = json.loads(out.read_text())
    assert generated["mp-spmd"] == generated["mp"]
    assert generated["mp-spmd"]["answers"] == [[0, 42], [1, 42]]
    assert generated["mp-spmd"]["lora"] != generated["mp-spmd"]["plain"]


@pytest.mark.slow
@pytest.mark.timeout(START_S + 600)
def test_ctrl_c_on_the_other_node_ends_the_head_and_leaves_nothing(setup: Setup) -> None:
    with running(setup) as (head, follower):
        follower.interrupt()
        assert ended(follower, 90) == 1
        ended(head, 90)  # vLLM's server exits with 0 when its engine has failed
        assert "node 1 was ended by" in head.log.read_text()
        assert_nothing_is_left(setup)


@pytest.mark.slow
@pytest.mark.timeout(START_S + 600)
def test_a_killed_head_ends_the_other_node_with_an_error(setup: Setup) -> None:
    with running(setup) as (head, follower):
        os.killpg(head.process.pid, signal.SIGKILL)
        assert ended(follower, 90) == 1
        assert "the head at 10.77.0.1:29502 is lost" in follower.log.read_text()
        assert leftovers(follower.node) == []
        # vLLM's killed front end leaves a semaphore.
        left = [each for each in leftovers(head.node) if not each.startswith("sem.mp-")]
        assert left == []


@pytest.mark.slow
@pytest.mark.timeout(START_S + 600)
def test_a_killed_rank_on_the_other_node_is_named_at_the_head(setup: Setup) -> None:
    with running(setup) as (head, follower):
        began = threading.Event()
        request = threading.Thread(target=_generate_long, args=(head, began), daemon=True)
        request.start()
        assert began.wait(60)
        rank = rank_on(follower)
        pid = pid_on_node(rank.pid)
        os.kill(rank.pid, signal.SIGKILL)
        ended(head, 90)
        assert ended(follower, 90) == 1
        # On a busy machine the kernel may not have freed the rank's memory yet.
        how = "killed by SIGKILL|exit status pending"
        death = rf"rank 1 on node 1 \(pid {pid}\) died in .*: ({how})"
        assert re.search(death, head.log.read_text())
        assert_nothing_is_left(setup)


def _generate_long(head: Head, began: threading.Event) -> None:
    with contextlib.suppress(OSError):
        head.stream([5, 6, 7], {"max_tokens": 400, "ignore_eos": True}, began=began)


@pytest.mark.slow
@pytest.mark.timeout(START_S + 600)
def test_without_a_secret_both_nodes_refuse(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_servers.SECRET", "")
    follower, head = Follower(setup, 1), Head(setup)
    with ending(follower.process, head.process):
        for part in (follower, head):
            assert ended(part, START_S) > 0
            assert "openssl rand -hex 32" in part.log.read_text()
        assert_nothing_is_left(setup)
