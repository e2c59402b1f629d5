"""Hours of a cluster's bad luck: a link that is cut again and again, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from cluster import SOON, Cluster
from simulated_nodes import SimulatedNodes, needs_nodes, pid_on_node

pytestmark = [needs_nodes, pytest.mark.slow, pytest.mark.timeout(3000)]

CUTS = int(os.environ.get("CUTS", "100"))
KILLS = int(os.environ.get("KILLS", "60"))


@pytest.mark.parametrize(("delay_s", "loss"), [(0.0, 0.0), (0.005, 0.01)])
def test_no_step_is_lost_while_the_link_is_cut(delay_s: float, loss: float) -> None:
    """CUTS cuts of a second each, at random moments. Between them the nodes have time to find each other
    again: two cuts that follow each other at once are a longer one."""
    chance = random.Random(7)
    with SimulatedNodes(2, delay_s=delay_s, loss=loss) as nodes, Cluster(nodes, **SOON) as run:
        run.ready()
        cuts = steps = 0
        for _ in range((CUTS + 9) // 10):
            run.ask("stream", 33.0)
            for _ in range(10):
                time.sleep(chance.uniform(1.0, 2.2))
                nodes.cut(1)
                time.sleep(1.0)
                nodes.mend(1)
            told = run.line()
            assert "value" in told, told
            sent, wrong, digests = told["value"]
            assert (wrong, digests) == (0, 1)
            steps += sent
            cuts += 10
            print(f"{cuts} cuts, {steps} steps, delay {delay_s} s, loss {loss}", flush=True)
        assert run.end() == [0, 0]


def victims(run: Cluster) -> dict[str, list[psutil.Process]]:
    ranks = run.call("pids")[1:]
    found = {
        "engine": [run.command(0)],
        "bridge": [run.bridge()],
        "follower": [run.command(1)],
        "head's rank": [run.process(0, ranks[0])],
        "node's rank": [run.process(1, ranks[1])],
    }
    found["node"] = run.nodes[1].processes()
    return found


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_random_kill_is_named_and_leaves_nothing(
    two: SimulatedNodes, seed: int, eventually: Callable[..., None]
) -> None:
    chance = random.Random(seed)
    who = ["engine", "bridge", "follower", "head's rank", "node's rank", "node"][seed % 6]
    number = chance.choice([signal.SIGKILL, signal.SIGSEGV])
    if who in ("bridge", "follower") and chance.random() < 0.4:
        number = signal.SIGSTOP
    with Cluster(two, **SOON) as run:
        targets = victims(run.ready())[who]
        rank_pid = pid_on_node(targets[0].pid)
        run.ask(*chance.choice([("stream", 30.0), ("sleep_on", 1, 30.0), ("sleep_on", 0, 30.0)]))
        time.sleep(chance.uniform(0.0, 1.0))
        began = time.monotonic()
        for target in targets:
            if who == "node":
                number = signal.SIGKILL
            target.send_signal(number)
        if who != "engine":
            error = run.line()
            seconds = time.monotonic() - began
            print(who, signal.Signals(number).name, f"{seconds:.2f} s:", error["text"][:150])
            assert seconds < 10
            if who in ("bridge", "follower", "node"):
                assert (error["error"], error["node"], error["ranks"]) == ("NodeLost", 1, [1])
            else:
                rank = int(who == "node's rank")
                assert error["error"] == "RankDied"
                assert (error["node"], error["rank"], error["pid"]) == (rank, rank, rank_pid)
                assert signal.Signals(number).name in error["reason"]
        for target in targets:
            if number == signal.SIGSTOP and target.is_running():
                target.resume()
        assert all(code != 0 for code in run.end())
        eventually(
            lambda: not any(
                process.status() != psutil.STATUS_ZOMBIE
                for node in two
                for process in node.processes()
            ),
            "no process is left",
        )
        if who != "node":
            assert [node.leftovers() for node in two] == [[], []]
        else:
            for node in two:  # whoever kills the janitor too leaves the folder to the next run
                assert all(name.startswith("mpspmd-") for name in node.leftovers(0.2))
