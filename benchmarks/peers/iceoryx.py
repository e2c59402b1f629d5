"""iceoryx2's Python binding: publish-subscribe of bytes, polled."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import secrets
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import iceoryx2

from benchmarks.machine import installed_version
from benchmarks.peers.peer import MAX_RANKS, SILENT, Peer, Setup
from benchmarks.rank_processes import END, RankProcesses

_PICKLE = 5
_BUFFER = 16  # messages that a publisher may be ahead of a subscriber before it waits
_POLLS = 50  # polls before it yields the core between polls: the other side may need this core


class Iceoryx(Peer):
    """One service for requests, which all ranks subscribe to, and one for replies, which all ranks publish.
    Both sides poll all the time, because that is its fastest way to wait.
    """

    name = "iceoryx2"
    version = installed_version("iceoryx2") or "unknown"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes = RankProcesses(self.name)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._ends: _Ends | None = None
        self._out: Any = None
        self._in: Any = None

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-iceoryx2-")
        prefix = f"benchmark_{secrets.token_hex(8)}_"
        self._prefix = prefix
        self._ends = _Ends(self._folder.name, prefix)
        self._out = self._ends.publisher("requests")
        self._in = self._ends.subscriber("replies")
        arguments = (self._setup, self._folder.name, prefix)
        self._processes.start(_serve, [arguments] * self._setup.ranks)
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        _send(self._out, request)

    def receive(self) -> list[object]:
        return [_receive(self._in) for _ in self._setup.repliers]

    def close(self) -> None:
        self._processes.stop(lambda: self.send(END))
        if self._folder is not None:
            self._out = self._in = self._ends = None
            # Ranks that were killed have left their files.
            for file in Path("/dev/shm").glob(f"{self._prefix}*"):
                with contextlib.suppress(OSError):
                    file.unlink()
            self._folder.cleanup()


class _Ends:
    """Makes the publisher and the subscriber of one process."""

    def __init__(self, folder: str, prefix: str) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        config = iceoryx2.config.default()
        config.global_cfg.root_path = iceoryx2.Path.new(folder)
        config.global_cfg.prefix = iceoryx2.FileName.new(prefix)
        self._node = (
            iceoryx2.NodeBuilder.new()
            .config(config)
            .signal_handling_mode(iceoryx2.SignalHandlingMode.Disabled)
            .create(iceoryx2.ServiceType.Ipc)
        )

    def publisher(self, service: str) -> Any:
        return (
            self._service(service)
            .publisher_builder()
            .initial_max_slice_len(1 << 16)
            .allocation_strategy(iceoryx2.AllocationStrategy.PowerOfTwo)
            .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )

    def subscriber(self, service: str) -> Any:
        return self._service(service).subscriber_builder().create()

    def _service(self, name: str) -> Any:
        return (
            self._node.service_builder(iceoryx2.ServiceName.new(name))
            .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
            .max_publishers(MAX_RANKS)
            .max_subscribers(MAX_RANKS)
            .max_nodes(MAX_RANKS + 1)
            .subscriber_max_buffer_size(_BUFFER)
            .enable_safe_overflow(False)
            .open_or_create()
        )


def _serve(rank: int, link: Connection, setup: Setup, folder: str, prefix: str) -> None:
    ends = _Ends(folder, prefix)
    out, requests = ends.publisher("replies"), ends.subscriber("requests")
    respond = setup.responder(rank)
    link.send(None)
    while (request := _receive(requests)) is not END:
        if (reply := respond(request)) is not SILENT:
            _send(out, reply)


def _send(publisher: Any, obj: object) -> None:
    data = pickle.dumps(obj, _PICKLE)
    sample = publisher.loan_slice_uninit(len(data))
    ctypes.memmove(sample.payload_ptr, data, len(data))
    sample.assume_init().send()


def _receive(subscriber: Any) -> object:
    polls = 0
    while (sample := subscriber.receive()) is None:
        polls += 1
        if polls > _POLLS:
            os.sched_yield()
    payload = sample.payload()
    obj = pickle.loads(ctypes.string_at(payload.data_ptr, payload.number_of_elements))
    sample.delete()
    return obj
