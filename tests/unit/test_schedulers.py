"""From a scheduler's variables a node knows its place in a run."""

from __future__ import annotations

import pytest

from mpspmd.errors import ConfigError
from mpspmd.nodes.schedulers import ScheduledPlace, first_host, place_from_environment

SRUN = {
    "SLURM_NNODES": "4",
    "SLURM_JOB_NODELIST": "gpu[03-05,9]",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "4",
}
STEP = {
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[04,9]",
    "SLURM_STEP_NUM_TASKS": "2",
}
LWS = {
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "1",
    "LWS_LEADER_ADDRESS": "llm-0.llm.default",
}
LWS_PLACE = ScheduledPlace("LeaderWorkerSet", 1, 2, "llm-0.llm.default")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        pytest.param({}, None, id="no scheduler"),
        pytest.param(SRUN, ScheduledPlace("Slurm", 1, 4, "gpu03"), id="srun"),
        pytest.param(
            {name: SRUN[name] for name in ("SLURM_NNODES", "SLURM_JOB_NODELIST", "SLURM_NODEID")},
            ScheduledPlace("Slurm", 1, 4, "gpu03"),
            id="the least that Slurm says",
        ),
        pytest.param(SRUN | STEP, ScheduledPlace("Slurm", 1, 2, "gpu04"), id="a part of a job"),
        pytest.param(
            {name: text for name, text in SRUN.items() if name != "SLURM_STEP_ID"},
            None,
            id="a batch script, without srun",
        ),
        pytest.param(
            {name: text for name, text in SRUN.items() if name != "SLURM_NODEID"},
            None,
            id="salloc's shell",
        ),
        pytest.param(
            SRUN | {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NTASKS": "8"},
            None,
            id="Slurm with one node",
        ),
        pytest.param(LWS, LWS_PLACE, id="LeaderWorkerSet"),
        pytest.param(LWS | SRUN, LWS_PLACE, id="LeaderWorkerSet in a Slurm job"),
        pytest.param(
            LWS | {"LWS_GROUP_SIZE": "1", "LWS_WORKER_INDEX": "0"}, None, id="a group of one pod"
        ),
        pytest.param(LWS | {"LWS_WORKER_INDEX": ""}, None, id="an old LeaderWorkerSet"),
    ],
)
def test_a_place_is_what_the_scheduler_says(
    variables: dict[str, str], place: ScheduledPlace | None
) -> None:
    assert place_from_environment(variables) == place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (SRUN | {"SLURM_NTASKS": "32"}, "SLURM_NTASKS=32 on 4 nodes.*--ntasks-per-node=1"),
        (SRUN | STEP | {"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS=4 on 2 nodes"),
        (SRUN | {"SLURM_NODEID": "4"}, "SLURM_NODEID=4: must be below SLURM_NNODES, which is 4"),
        (SRUN | {"SLURM_NNODES": "-4"}, "SLURM_NNODES='-4': must be a whole number"),
        (LWS | {"LWS_WORKER_INDEX": "2"}, "LWS_WORKER_INDEX=2: must be below LWS_GROUP_SIZE"),
        (LWS | {"LWS_GROUP_SIZE": "two"}, "LWS_GROUP_SIZE='two': must be a whole number"),
    ],
)
def test_variables_that_cannot_be_right_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place_from_environment(variables)


@pytest.mark.parametrize(
    ("node_list", "host"),
    [
        ("node7", "node7"),
        ("node7,node9", "node7"),
        ("gpu-a100-01.cluster.example,x", "gpu-a100-01.cluster.example"),
        ("node[1-3]", "node1"),
        ("node[001-004,007],other[1-2]", "node001"),
        ("node[12,3]", "node12"),
        ("rack[0-1]node[2-5]", "rack0node2"),
        ("n[1-2]-ib,m1", "n1-ib"),
        ("10.0.0.[7-9]", "10.0.0.7"),
    ],
)
def test_the_first_host_of_a_node_list(node_list: str, host: str) -> None:
    assert first_host(node_list) == host


@pytest.mark.parametrize(
    "node_list", ["", "(null)]", "node[", "node[a-b]", "node[]", ",node1", "[-1]x"]
)
def test_what_is_no_node_list_is_refused(node_list: str) -> None:
    with pytest.raises(ConfigError, match="is no list of Slurm nodes"):
        first_host(node_list)
