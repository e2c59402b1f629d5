"""What fails on another node is named at the head, and all nodes end."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cluster import SOON, Cluster
from simulated_nodes import SimulatedNodes, needs_nodes

pytestmark = needs_nodes

Eventually = Callable[..., None]


def nothing_is_left(nodes: SimulatedNodes) -> None:
    assert [node.leftovers() for node in nodes] == [[] for _ in nodes]


def no_process_is_left(nodes: SimulatedNodes, eventually: Eventually) -> None:
    """Who kills all processes of a node kills the janitor too: the next run removes the folder."""
    eventually(lambda: not any(node.processes() for node in nodes), "no process is left")


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.slow)]
)
def test_a_killed_rank_is_named_with_its_node(two: SimulatedNodes, number: int) -> None:
    with Cluster(two, local=2) as run:
        pids = run.ready().call("pid")
        error = run.call("kill_on", 3, number)
        assert error["error"] == "RankDied"
        assert (error["node"], error["rank"], error["pid"]) == (1, 3, pids[3])
        assert signal.Signals(number).name in error["reason"]
        assert "rank 3 on node 1" in error["text"]
        assert error["seconds"] < 10, "the others work for 20 s"
        assert run.end() == [1, 1]
        nothing_is_left(two)


@pytest.mark.slow
def test_a_rank_of_another_node_that_exits_is_named(two: SimulatedNodes) -> None:
    with Cluster(two) as run:
        run.ready()
        error = run.call("leave_on", 1)
        assert (error["error"], error["node"], error["rank"]) == ("RankDied", 1, 1)
        assert "SystemExit" in error["reason"] or "exit code 9" in error["reason"]
        assert run.end() == [1, 1]
        nothing_is_left(two)


@pytest.mark.slow
def test_a_rank_of_the_head_that_is_killed_ends_the_other_node(two: SimulatedNodes) -> None:
    with Cluster(two) as run:
        run.ready()
        error = run.call("kill_on", 0, signal.SIGKILL)
        assert (error["error"], error["node"], error["rank"]) == ("RankDied", 0, 0)
        assert run.end() == [1, 1]
        assert "node 1 ends: rank 0 has died" in run.errors(1)
        nothing_is_left(two)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raises on 1", "no such model"),
        pytest.param("exits on 1", "exit code 7", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_cannot_be_made_on_another_node_fails_the_start(
    two: SimulatedNodes, how: str, cause: str
) -> None:
    with Cluster(two, how=how) as run:
        error = run.line()
        assert error["error"] == "StartupError"
        assert cause in error["causes"]["1"]
        assert run.end() == [3, 1]
        nothing_is_left(two)


def test_a_lost_node_is_named_with_its_ranks(two: SimulatedNodes, eventually: Eventually) -> None:
    with Cluster(two, local=2, **SOON) as run:
        run.ready().ask("sleep_on", 3, 30.0)
        began = time.monotonic()
        two.lose(1)
        error = run.line()
        assert (error["error"], error["node"], error["ranks"]) == ("NodeLost", 1, [2, 3])
        assert time.monotonic() - began < 25, "the rank would work for 30 s"
        two.mend(1)
        assert run.end()[0] == 1
        no_process_is_left(two, eventually)


@pytest.mark.slow
def test_a_cut_link_loses_the_node_and_ends_its_ranks(
    two: SimulatedNodes, eventually: Eventually
) -> None:
    with Cluster(two, **SOON) as run:
        run.ready().ask("sleep_on", 1, 30.0)
        two.cut(1)
        assert run.line()["error"] == "NodeLost"
        assert run.members[1].wait(30) == 1
        eventually(lambda: not two[1].processes(), "no process is left on the other node")
        assert "silent" in run.errors(1)
        two.mend(1)
        assert run.end() == [1, 1]
        nothing_is_left(two)


def test_a_short_cut_is_only_logged(two: SimulatedNodes) -> None:
    with Cluster(two) as run:
        run.ready().ask("stream", 3.0)
        for _ in range(2):
            time.sleep(0.3)
            two.cut(1)
            time.sleep(0.9)
            two.mend(1)
        sent, wrong, digests = run.line()["value"]
        assert sent > 16
        assert (wrong, digests) == (0, 1)
        assert run.end() == [0, 0]
        assert "answers again" in run.errors(0)
        nothing_is_left(two)


def cpu_s_in_a_second(process: psutil.Process) -> float:
    before = process.cpu_times()
    time.sleep(1.0)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system)


def test_a_node_waits_for_a_busy_rank_without_using_its_core(
    two: SimulatedNodes, eventually: Eventually, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with Cluster(two) as run:
        follower = run.ready() and run.command(1)
        run.call("wait_on", 1, str(go), reply_ranks=None)
        run.ask("large", 50_000_000)
        # When the rings are full.
        eventually(lambda: cpu_s_in_a_second(follower) < 0.5, "the node sleeps")
        go.touch()
        assert run.line()["value"] == [50_000_000] * 2
        assert run.end() == [0, 0]


@pytest.mark.parametrize("whole_group", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_other_nodes_end_with_the_head(
    two: SimulatedNodes, whole_group: bool, eventually: Eventually
) -> None:
    with Cluster(two) as run:
        run.ready()
        began = time.monotonic()
        if whole_group:
            two[0].kill_all()
        else:
            run.process(0, run.call("pids")[0]).kill()
        assert run.members[1].wait(20) == 1
        assert "node 1 ends: the " in run.errors(1)
        eventually(lambda: not two[1].processes(), "no process is left on the other node")
        assert time.monotonic() - began < 20
        no_process_is_left(two, eventually)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_bridge_that_ends_or_stops_loses_the_other_nodes(
    two: SimulatedNodes, number: int
) -> None:
    with Cluster(two, **SOON) as run:
        run.ready()
        bridge = run.bridge()
        run.ask("sleep_on", 1, 30.0)
        os.kill(bridge.pid, number)
        error = run.line()
        assert (error["error"], error["ranks"]) == ("NodeLost", [1])
        assert "the bridge to it" in error["text"]
        assert run.end() == [1, 1]
        nothing_is_left(two)


@pytest.mark.slow
def test_a_stopped_follower_is_a_lost_node(two: SimulatedNodes) -> None:
    with Cluster(two, **SOON) as run:
        run.ready().ask("sleep_on", 1, 30.0)
        follower = run.command(1)
        follower.suspend()
        assert run.line()["error"] == "NodeLost"
        follower.resume()
        assert run.end() == [1, 1]
        nothing_is_left(two)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_another_nodes_command_ends_all(two: SimulatedNodes, number: int) -> None:
    with Cluster(two) as run:
        run.ready().ask("sleep_on", 0, 30.0)
        follower = run.command(1)
        follower.send_signal(number)
        error = run.line()
        assert (error["error"], error["rank"]) == ("RankDied", 1)
        assert "node 1 was ended by" in error["reason"]
        codes = run.end()
        assert codes[0] == 1
        assert codes[1] != 0
        nothing_is_left(two)


@pytest.mark.parametrize(
    ("exception", "codes"),
    [
        (("ValueError", "no luck"), [1, 1]),
        pytest.param(("SystemExit", 5), [5, 1], marks=pytest.mark.slow),
        pytest.param(("SystemExit", 0), [0, 0], marks=pytest.mark.slow),
    ],
)
def test_an_exception_that_ends_the_heads_program_fails_all_nodes(
    two: SimulatedNodes, exception: tuple[str, object], codes: list[int]
) -> None:
    with Cluster(two) as run:
        run.ready().ask("end by", *exception)
        assert run.end() == codes
        told = f"node 1 ends: the head's program has ended by {exception[0]}: {exception[1]}"
        assert (told in run.errors(1)) == (codes[1] != 0)
        nothing_is_left(two)


@pytest.mark.slow
def test_ctrl_c_at_the_head_ends_all(two: SimulatedNodes) -> None:
    with Cluster(two) as run:
        run.ready().ask("sleep_on", 1, 30.0)
        time.sleep(0.3)
        run.command(0).send_signal(signal.SIGINT)
        codes = [member.wait(20) for member in run.members]
        assert codes[0] != 0
        nothing_is_left(two)


def test_a_node_that_has_no_free_descriptor_ends_rather_than_hangs(
    two: SimulatedNodes, eventually: Eventually
) -> None:
    with Cluster(two, **SOON) as run:
        run.ready()
        follower = run.command(1)
        # Some are open for a moment only: those are free, too.
        used = set(range(1000))
        for _ in range(10):
            used &= {int(name) for name in os.listdir(f"/proc/{follower.pid}/fd")}
            time.sleep(0.02)
        lowest = min(set(range(1000)) - used)
        follower.rlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
        run.ask("sleep_on", 0, 30.0)
        assert run.line()["error"] == "NodeLost"
        assert run.members[1].wait(20) == 1
        assert "Too many open files" in run.errors(1)
        assert run.end() == [1, 1]
        no_process_is_left(two, eventually)
