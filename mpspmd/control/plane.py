"""The two ends of the control plane: a ROUTER socket in the engine, a DEALER socket in each rank.

The sockets are ipc:// sockets in the run's private folder. A ZeroMQ socket belongs to one thread: to the
supervisor in the engine, and to the control thread in a rank. Other threads send through a mailbox.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import zmq

from mpspmd.control.messages import ToEngine, ToRank, decode_to_engine, decode_to_rank, encode
from mpspmd.errors import SegmentError
from mpspmd.notice import notice
from mpspmd.transport.descriptor import Descriptor

logger = logging.getLogger(__name__)

_MAX_SOCKET_PATH = 107
"""Bytes of sun_path in struct sockaddr_un, without its final zero."""

_Received = TypeVar("_Received")


def control_address(run_dir: Path) -> str:
    """The address of the engine's socket. Raises as check_socket_path()."""
    path = run_dir / "control"
    check_socket_path(path)
    return f"ipc://{path}"


def check_socket_path(path: Path) -> None:
    """Raises SegmentError if ZeroMQ can't use the path for a socket: it is too long, or isn't UTF-8."""
    encoded = os.fsencode(path)
    try:
        encoded.decode()
    except UnicodeDecodeError:
        raise SegmentError(
            f"the socket's path {encoded!r} isn't UTF-8, which ZeroMQ wants: choose another folder with "
            "MPSPMD_RUNTIME_DIR"
        ) from None
    if len(encoded) > _MAX_SOCKET_PATH:
        raise SegmentError(
            f"the socket's path {path} has {len(encoded)} bytes, and {_MAX_SOCKET_PATH} are allowed: "
            "choose a shorter folder with MPSPMD_RUNTIME_DIR"
        )


class _Mailbox:
    """Holds what other threads send until the thread that owns the socket sends it."""

    def __init__(self) -> None:
        self._outgoing: queue.SimpleQueue[tuple[bytes, ToEngine | ToRank]] = queue.SimpleQueue()
        self._bell = Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        # A signal handler or a destructor may wake the owner while this very thread does.
        self._closing = threading.RLock()

    def put(self, identity: bytes, message: ToEngine | ToRank) -> None:
        self._outgoing.put((identity, message))
        self.wake()

    def wake(self) -> None:
        with self._closing:
            if self._bell.fd >= 0:
                os.eventfd_write(self._bell.fd, 1)

    def take_all(self) -> Iterable[tuple[bytes, ToEngine | ToRank]]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell.fd)
        while not self._outgoing.empty():
            yield self._outgoing.get()

    def fileno(self) -> int:
        return self._bell.fd

    def close(self) -> None:
        with self._closing:
            self._bell.close()


class _Plane(Generic[_Received]):
    """One end. `poll`, `watch`, `unwatch`: the thread that owns the socket."""

    def __init__(self, socket_type: int, decode: Callable[[bytes], _Received]) -> None:
        self._decode = decode
        self._context = zmq.Context()
        self._socket = self._context.socket(socket_type)
        self._socket.linger = 500  # milliseconds in which the last message may still be sent
        self._mailbox = _Mailbox()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._mailbox.fileno(), zmq.POLLIN)

    def watch(self, fd: int) -> None:
        """From now on poll() also waits for this descriptor."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)

    def wake(self) -> None:
        """Makes poll() return. Any thread."""
        self._mailbox.wake()

    def poll(self, timeout_s: float) -> tuple[set[int], list[_Received]]:
        """Sends what other threads have put into the mailbox, and receives.

        Returns the watched descriptors that are ready, and the messages that have come. It waits for
        `timeout_s` until there is any of these.
        """
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        for identity, message in self._mailbox.take_all():
            data = encode(message)
            try:
                self._socket.send_multipart([identity, data] if identity else [data], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                logger.debug("control message %s not sent: %s", message, error)
        files = {fd for fd in ready if isinstance(fd, int) and fd != self._mailbox.fileno()}
        received: list[_Received] = []
        while True:
            try:
                data = self._socket.recv_multipart(zmq.NOBLOCK)[-1]
            except zmq.Again:
                return files, received
            try:
                received.append(self._decode(data))
            except msgspec.DecodeError as error:
                notice(
                    logger.warning, "dropped a control message of %d bytes: %s", len(data), error
                )

    def close(self) -> None:
        """The thread that owns the socket, or any thread after that one has ended."""
        self._socket.close()
        self._context.term()
        self._mailbox.close()


class EnginePlane(_Plane[ToEngine]):
    """The engine's end."""

    def __init__(self, address: str) -> None:
        super().__init__(zmq.ROUTER, decode_to_engine)
        try:
            self._socket.bind(address)
            # Regardless of the umask. Other users can't enter the folder.
            os.chmod(address.removeprefix("ipc://"), 0o600)
        except BaseException:
            self.close()
            raise
        self.elsewhere: Callable[[int, ToRank], bool] | None = None
        """Sends a message to a rank on another node. False if the rank is on this one."""

    def send(self, rank: int, message: ToRank) -> None:
        """Any thread."""
        if self.elsewhere is None or not self.elsewhere(rank, message):
            self._mailbox.put(_identity(rank), message)


class RankPlane(_Plane[ToRank]):
    """A rank's end."""

    def __init__(self, address: str, rank: int) -> None:
        super().__init__(zmq.DEALER, decode_to_rank)
        self._socket.identity = _identity(rank)
        self._socket.connect(address)

    def send(self, message: ToEngine) -> None:
        """Any thread."""
        self._mailbox.put(b"", message)


def _identity(rank: int) -> bytes:
    return b"rank-%d" % rank
