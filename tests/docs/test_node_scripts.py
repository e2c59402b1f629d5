"""The manifest and the batch script for several nodes give vLLM on each node what belongs to it.

Neither a cluster nor Slurm is there, so programs that print their arguments stand in for vLLM, srun and
scontrol.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pages import DOCS, fenced_in

PAGE = DOCS / "howto" / "nodes.md"
VLLM = "serve MODEL --tensor-parallel-size 8 --pipeline-parallel-size 2 "
VLLM += "--distributed-executor-backend mp-spmd --nnodes 2 --node-rank {} --master-addr {}{}\n"


@pytest.fixture
def stand_ins(tmp_path: Path) -> str:
    """PATH with them."""
    programs = {
        "vllm": 'echo "$@"',
        "srun": 'shift; exec "$@"',
        "scontrol": "printf 'gpu4\\ngpu9\\n'",
    }
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def _output(command: list[str], **variables: str) -> str:
    return subprocess.run(
        command, env=os.environ | variables, check=True, capture_output=True, text=True
    ).stdout


def _block(beginning: str) -> str:
    (found,) = [text for text in fenced_in(PAGE) if beginning in text and "vllm serve" in text]
    return re.sub(r"^```.*$", "", found, flags=re.MULTILINE).strip()


@pytest.mark.parametrize(("pod", "headless"), [("leader", ""), ("worker", " --headless")])
def test_each_pod_of_the_manifest_starts_its_part(pod: str, headless: str, stand_ins: str) -> None:
    manifest = yaml.safe_load(_block("apiVersion: leaderworkerset"))
    template = manifest["spec"]["leaderWorkerTemplate"]
    (container,) = template[f"{pod}Template"]["spec"]["containers"]
    index = "1" if headless else "0"
    head = "llm-0.llm.default"
    output = _output(
        [*container["command"], *container["args"]],
        PATH=stand_ins,
        LWS_GROUP_SIZE=str(template["size"]),
        LWS_WORKER_INDEX=index,
        LWS_LEADER_ADDRESS=head,
    )
    assert output == VLLM.format(index, head, headless)


@pytest.mark.parametrize(("node", "headless"), [("0", ""), ("1", " --headless")])
def test_each_task_of_the_batch_script_starts_its_part(
    node: str, headless: str, stand_ins: str
) -> None:
    output = _output(
        ["bash", "-euc", _block("#SBATCH")],
        PATH=stand_ins,
        SLURM_JOB_NODELIST="gpu[4,9]",
        SLURM_NNODES="2",
        SLURM_NODEID=node,
    )
    assert output == VLLM.format(node, "gpu4", headless)
