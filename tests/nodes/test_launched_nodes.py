"""mpspmd-launch over several nodes: one engine, on node 0, and ranks on all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import SECRET
from simulated_nodes import SimulatedNode, SimulatedNodes, ending, needs_nodes

pytestmark = [needs_nodes, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAUNCH = "from mpspmd.cli.launch.main import main; main()"


Results = list[tuple[int, str, str]]
"""Each node's exit code, stdout and stderr."""


def launch(nodes: SimulatedNodes, port: int, *command: str | Path, restarts: int = 0) -> Results:
    return results(started(nodes, port, *command, restarts=restarts))


def started(
    nodes: SimulatedNodes, port: int, *command: str | Path, count: str = "", restarts: int = 0
) -> list[subprocess.Popen[str]]:
    return [
        start(
            node, "--nnodes", count or str(len(nodes)), "--rdzv-backend", "c10d",
            "--rdzv-endpoint", f"node0:{port}", "--rdzv-id", str(port),
            "--local-addr", node.address, "--max-restarts", str(restarts), *map(str, command),
        )
        for node in nodes
    ]  # fmt: skip


def start(node: SimulatedNode, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    variables |= {"MPSPMD_SECRET": SECRET, "RES_OPTIONS": "timeout:1 attempts:1"}
    variables["MPSPMD_NODE_TIMEOUT_S"] = "20"  # as in cluster.py
    return node.start(
        sys.executable, "-c", LAUNCH, "-n", "1", *arguments,
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def results(launchers: list[subprocess.Popen[str]]) -> Results:
    with ending(*launchers):
        outputs = [launcher.communicate(timeout=120) for launcher in launchers]
        return [
            (launcher.returncode, *output)
            for launcher, output in zip(launchers, outputs, strict=True)
        ]


def test_an_engine_on_node_0_drives_the_ranks_of_both(two: SimulatedNodes) -> None:
    head, other = launch(two, 29500, HERE / "launched.py", "works")
    assert (head[0], other[0]) == (0, 0), (head, other)
    assert "places [[0, 0, 0, 0, 2, 0], [1, 1, 0, 1, 2, 0]]" in head[1]
    assert "places" not in other[1]
    assert [node.leftovers() for node in two] == [[], []]


@pytest.mark.parametrize("scheduler", ["Slurm", "LeaderWorkerSet"])
def test_a_scheduler_says_where_each_node_is(two: SimulatedNodes, scheduler: str) -> None:
    port = 29620 if scheduler == "Slurm" else 29640
    launchers = []
    for node in two:
        rank = str(node.rank)
        variables = {
            "Slurm": {
                "SLURM_NNODES": "2", "SLURM_NODEID": rank, "SLURM_JOB_NODELIST": "node[0-1]",
                "SLURM_STEP_ID": "0", "SLURM_PROCID": rank, "SLURM_NTASKS": "2",
            },
            "LeaderWorkerSet": {
                "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": rank, "LWS_LEADER_ADDRESS": "node0",
            },
        }[scheduler]  # fmt: skip
        script = (str(HERE / "launched.py"), "works")
        launchers.append(start(node, "--master-port", str(port), *script, **variables))
    head, other = results(launchers)
    assert (head[0], other[0]) == (0, 0), (head, other)
    assert "places [[0, 0, 0, 0, 2, 0], [1, 1, 0, 1, 2, 0]]" in head[1]
    assert [node.leftovers() for node in two] == [[], []]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        pytest.param("raises", "on purpose", marks=pytest.mark.slow),
        pytest.param("exits", "rank 1 on node 1", marks=pytest.mark.slow),
        pytest.param("is killed", "rank 1 on node 1", marks=pytest.mark.slow),
    ],
)
def test_a_failure_on_node_1_ends_both_launchers(two: SimulatedNodes, what: str, told: str) -> None:
    head, other = launch(two, 29520, HERE / "launched.py", what)
    assert head[0] != 0
    assert other[0] != 0
    assert told in head[2]
    assert [node.leftovers() for node in two] == [[], []]


@pytest.mark.parametrize("what", ["is killed", pytest.param("main raises", marks=pytest.mark.slow)])
def test_a_restart_starts_all_nodes_anew(two: SimulatedNodes, what: str) -> None:
    head, other = launch(two, 29540, HERE / "launched.py", what, restarts=1)
    assert (head[0], other[0]) == (0, 0), (head, other)
    assert "places [[0, 0, 0, 0, 2, 0], [1, 1, 0, 1, 2, 0]]" in head[1]
    assert [node.leftovers() for node in two] == [[], []]


def line_with(text: str, launcher: subprocess.Popen[str]) -> str:
    """The first line of what the launcher prints that has this text."""
    assert launcher.stdout is not None
    for line in launcher.stdout:
        if text in line:
            return line
    raise AssertionError(f"the launcher has ended: {launcher.communicate()}")


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_launcher_that_is_killed_ends_the_run_on_both_nodes(
    two: SimulatedNodes, node: int, number: int, eventually: Callable[..., None]
) -> None:
    launchers = started(two, 29660, HERE / "launched.py", "goes on")
    with ending(*launchers):
        line_with("places", launchers[0])
        (launcher,) = [each for each in two[node].processes() if LAUNCH in each.cmdline()]
        launcher.send_signal(number)
        ends = results(launchers)
        assert all(code != 0 for code, _, _ in ends), ends
        eventually(lambda: not any(each.processes() for each in two), "no process is left")
        assert [each.leftovers() for each in two] == [[], []]


@pytest.mark.slow
def test_a_lost_node_is_left_out_of_the_next_attempt(two: SimulatedNodes) -> None:
    launchers = started(two, 29680, HERE / "launched.py", "goes on", count="1:2", restarts=1)
    with ending(*launchers):
        line_with("places [[0, 0, 0, 0, 2, 0], [1, 1, 0, 1, 2, 0]]", launchers[0])
        two[1].kill_all()
        line_with("places [[0, 0, 0, 0, 1, 0]]", launchers[0])
        assert launchers[0].wait(30) == 0
        assert two[0].leftovers() == []
    two[1].remove_files()


@pytest.mark.slow
def test_the_examples_run_over_two_nodes(two: SimulatedNodes) -> None:
    for port, example in ((29560, "hello.py"), (29580, "tensor_parallel_mlp.py")):
        head, other = launch(two, port, ROOT / "examples" / example)
        assert (head[0], other[0]) == (0, 0), (head, other)
        assert head[1]


@pytest.mark.slow
def test_three_nodes_have_one_engine() -> None:
    with SimulatedNodes(3) as nodes:
        results = launch(nodes, 29600, HERE / "launched.py", "works")
        assert [code for code, _, _ in results] == [0, 0, 0], results
        assert "[2, 2, 0, 2, 3, 0]" in results[0][1]
