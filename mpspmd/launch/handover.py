"""Handover: how a launched engine gives its ranks what a spawned process gets from multiprocessing.

Each rank connects to the engine's socket and sends its number. It gets a pickled RankStart and, beside it
by SCM_RIGHTS, every file descriptor that the pickle refers to.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import time
from collections.abc import Sequence
from multiprocessing import context as multiprocessing_context
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

from mpspmd.processes.launch import Launch
from mpspmd.processes.process import Process
from mpspmd.processes.spawn import AroundStart, StartRanks
from mpspmd.processes.start import RankStart, not_picklable

_WHO = struct.Struct("=I")  # rank
_SIZES = struct.Struct("=QI")  # bytes of the pickle, number of descriptors
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD: the most that the kernel passes in one message
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

_received: list[int] = []
"""On a rank: the descriptors that came beside the pickle, in the order of their indexes."""


class PassedDescriptor:
    """Stands in a pickle for a file descriptor that is sent beside it."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        return _received[self._index]


class _Collector:
    """Replaces the object that multiprocessing consults while it pickles for a process that it spawns."""

    DupFd = PassedDescriptor

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1


def hand_over(launch: Launch) -> StartRanks:
    """The function by which a launched engine starts its ranks: it waits for them to connect."""

    def start(
        ranks: Sequence[RankStart], around_start: AroundStart, started: list[Process]
    ) -> None:
        listener = socket.socket(fileno=launch.listener)
        listener.set_inheritable(False)
        with listener:
            connections: dict[int, socket.socket] = {}
            while len(connections) < len(ranks):
                connection, _ = listener.accept()
                (rank,) = _WHO.unpack(connection.recv(_WHO.size, socket.MSG_WAITALL))
                connections[rank] = connection
            os.unlink(launch.socket)
        for rank in ranks:
            # Never closed by the rank, so its end announces the end of the rank.
            connection = connections[rank.rank]
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(peer)
            process = Process(pid, connection.fileno(), connection.close, is_child=False)
            started.append(process)
            rank.death_pipe.arm(process)
            _send(connection, rank)

    return start


def receive(launch: Launch) -> RankStart:
    """On a rank: waits for the engine's RankStart. SystemExit when the engine ends without sending it."""
    try:
        connection = _connect(launch)
        connection.sendall(_WHO.pack(launch.rank))
        header, fds, _, _ = socket.recv_fds(connection, _SIZES.size, _MAX_DESCRIPTORS)
        size, n_fds = _SIZES.unpack(header)
        assert len(fds) == n_fds
        payload = bytearray()
        while len(payload) < size and (chunk := connection.recv(size - len(payload))):
            payload += chunk
        # Left open: when the kernel closes it, the engine knows that this process has ended.
        connection.detach()
        for fd in fds:
            os.set_inheritable(fd, False)
        _received[:] = fds
        start = cast(RankStart, pickle.loads(payload))
    except (OSError, struct.error, EOFError, pickle.UnpicklingError):
        print("the engine has ended without starting its ranks", file=sys.stderr)
        raise SystemExit(1) from None
    return start


def _send(connection: socket.socket, start: RankStart) -> None:
    collector = _Collector()
    set_spawning: Any = multiprocessing_context.set_spawning_popen
    set_spawning(collector)
    try:
        payload = bytes(ForkingPickler.dumps(start))
    except Exception as error:
        raise not_picklable(start.worker, error) from error
    finally:
        set_spawning(None)
    header = _SIZES.pack(len(payload), len(collector.fds))
    socket.send_fds(connection, [header], collector.fds)
    connection.sendall(payload)


def _connect(launch: Launch) -> socket.socket:
    launcher = os.getppid()
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(launch.socket)
            return connection
        except FileNotFoundError:
            # The engine is started at the same moment, and may not listen yet.
            connection.close()
            if os.getppid() != launcher:
                raise
            time.sleep(0.01)
