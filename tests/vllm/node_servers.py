"""vLLM over simulated nodes: `vllm serve` on the head, and `vllm serve --headless` on the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from simulated_nodes import SimulatedNode, SimulatedNodes
from vllm_server import Server

# Both sides need the same: what vLLM would choose depends on whether it is a server.
ENGINE_OPTIONS = (
    "--max-model-len", "512", "--max-num-batched-tokens", "8192", "--max-num-seqs", "128",
)  # fmt: skip


def environment(node: SimulatedNode) -> dict[str, str]:
    """The node's one core: each node has one rank."""
    cores = sorted(os.sched_getaffinity(0))
    return {
        "VLLM_CPU_OMP_THREADS_BIND": str(cores[node.rank % len(cores)]),
        "MPSPMD_SECRET": "only-for-tests-of-several-nodes",
    }


def parallel_options(nodes: SimulatedNodes, tp: int, pp: int) -> list[str]:
    options = ["--tensor-parallel-size", str(tp), "--pipeline-parallel-size", str(pp)]
    # Eager is faster to start; with PP on the CPU vLLM's warm-up needs the traced model.
    options += ["--enforce-eager"] if pp == 1 else ["--compilation-config", '{"backend": "eager"}']
    return [*options, "--nnodes", str(len(nodes)), "--master-addr", nodes[0].address]


class Head(Server):
    """`vllm serve` on node 0. Requests come from node 0 as well."""

    def __init__(
        self, nodes: SimulatedNodes, model: Path, log: Path, backend: str, tp: int, pp: int
    ) -> None:
        self._node = nodes[0]
        options = [*ENGINE_OPTIONS, *parallel_options(nodes, tp, pp), "--node-rank", "0"]
        options += ["--distributed-executor-backend", backend]
        super().__init__(model, log, *options, env=environment(self._node))

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return self._node.start(*command, **options)

    def _network(self) -> contextlib.AbstractContextManager[None]:
        return self._node.network()


class Follower:
    """`vllm serve --headless` on another node."""

    def __init__(
        self,
        nodes: SimulatedNodes,
        rank: int,
        model: Path,
        log: Path,
        backend: str,
        tp: int,
        pp: int,
    ) -> None:
        self.log = log
        vllm = str(Path(sys.executable).with_name("vllm"))
        options = [*ENGINE_OPTIONS, *parallel_options(nodes, tp, pp), "--node-rank", str(rank)]
        options += ["--distributed-executor-backend", backend, "--headless"]
        with log.open("w") as file:
            self.process = nodes[rank].start(
                vllm, "serve", str(model), *options,
                env=environment(nodes[rank]), stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def interrupt(self) -> None:
        """Ctrl-C: the whole process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self, within_s: float) -> int:
        """Its exit code, or with a minus the signal that ended it."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there\n{self.log.read_text()[-5000:]}") from None

    def wait_for_log(self, text: str, timeout_s: float = 120) -> None:
        """Until the log has `text` in it."""
        end = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            assert time.monotonic() < end, f"no {text!r} in\n{self.log.read_text()[-5000:]}"
            time.sleep(0.05)
