"""vLLM over simulated nodes: `vllm serve` on the head, and `vllm serve --headless` on the others."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulated_nodes import SimulatedNode
from vllm_server import Server

# Both sides need the same: what vLLM would choose depends on whether it is a server.
_ENGINE_OPTIONS = (
    "--max-model-len", "512", "--max-num-batched-tokens", "8192", "--max-num-seqs", "128",
)  # fmt: skip
# A cache of PyTorch's, and the sockets that vLLM's front end leaves behind when it kills its engine.
_THEIRS = re.compile(r"torchinductor_|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}$")
SECRET = "only-for-tests-of-several-nodes"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all nodes of a run are told."""

    nodes: Sequence[SimulatedNode]
    model: Path
    folder: Path
    """For the logs."""
    backend: str = "mp-spmd"
    tp: int = 2
    pp: int = 1
    more: tuple[str, ...] = ()
    """More options."""

    def options(self, rank: int) -> list[str]:
        options = ["--distributed-executor-backend", self.backend, *_ENGINE_OPTIONS]
        options += ["--tensor-parallel-size", str(self.tp)]
        options += ["--pipeline-parallel-size", str(self.pp)]
        # Eager is faster to start; with PP on the CPU vLLM's warm-up needs the traced model.
        traced = ["--no-enforce-eager", "--compilation-config", '{"backend": "eager"}']
        options += ["--enforce-eager"] if self.pp == 1 else traced
        options += ["--nnodes", str(len(self.nodes)), "--node-rank", str(rank)]
        return [*options, "--master-addr", self.nodes[0].address, *self.more]

    def environment(self, rank: int) -> dict[str, str]:
        """`mp` wants to be told the cores of each of the node's ranks."""
        cores = sorted(os.sched_getaffinity(0))
        ranks = self.tp * self.pp // len(self.nodes)
        binding = [str(cores[(rank + local) % len(cores)]) for local in range(ranks)]
        return {
            "VLLM_CPU_OMP_THREADS_BIND": "|".join(binding),
            "MPSPMD_SECRET": SECRET,
            # vLLM's many processes keep a small machine so busy that a node is silent for seconds.
            "MPSPMD_NODE_TIMEOUT_S": "30",
            # torch asks the name service for the names of addresses, and none answers here.
            "RES_OPTIONS": "timeout:1 attempts:1",
        }


class Head(Server):
    """`vllm serve` on node 0. Requests come from node 0 as well."""

    def __init__(self, setup: Setup) -> None:
        self.node = setup.nodes[0]
        log = setup.folder / "head.log"
        super().__init__(setup.model, log, *setup.options(0), env=setup.environment(0))

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return self.node.start(*command, **options)

    def _network(self) -> contextlib.AbstractContextManager[None]:
        return self.node.network()


class Follower:
    """`vllm serve --headless` on another node."""

    def __init__(self, setup: Setup, rank: int) -> None:
        self.node = setup.nodes[rank]
        self.log = setup.folder / f"node{rank}.log"
        vllm = str(Path(sys.executable).with_name("vllm"))
        command = [vllm, "serve", str(setup.model), "--headless", *setup.options(rank)]
        with self.log.open("w") as file:
            self.process = self.node.start(
                *command, env=setup.environment(rank), stdout=file, stderr=subprocess.STDOUT
            )

    def interrupt(self) -> None:
        """Ctrl-C: the whole process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)


def ended(part: Head | Follower, within_s: float) -> int:
    """The exit code of its command, or with a minus the signal that ended it."""
    try:
        return part.process.wait(within_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still there\n{part.log.read_text()[-5000:]}") from None


def leftovers(node: SimulatedNode) -> list[str]:
    """Processes and files that are left on the node, but for files that are left with `mp` too."""
    end = time.monotonic() + 30
    while left := [each for each in node.leftovers(0) if not _THEIRS.match(each)]:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return left
