"""The control plane's two ends: a ROUTER in the engine, a DEALER in each rank.

Sockets are ipc:// in the run's private folder. A ZeroMQ socket belongs to one thread: here, to the
supervisor's in the engine and to the control thread's in a rank; other threads hand messages over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
from collections.abc import Iterable
from pathlib import Path

import msgspec
import zmq

from mpspmd.control import messages
from mpspmd.control.messages import ToEngine, ToRank
from mpspmd.errors import SegmentError
from mpspmd.notice import notice
from mpspmd.transport.descriptor import pipe_above_standard

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH = 107
"""Bytes of sun_path in struct sockaddr_un, without its final zero."""


def control_address(run_dir: Path) -> str:
    """The socket's address; SegmentError when the folder's name is too long for one."""
    path = run_dir / "control"
    check_socket_path(path)
    return f"ipc://{path}"


def check_socket_path(path: Path) -> None:
    """SegmentError when it can't be a socket's address: it is too long, or ZeroMQ doesn't take it."""
    if not is_utf8(path):
        raise SegmentError(
            f"the socket's path {os.fsencode(path)!r} isn't UTF-8, which ZeroMQ wants: choose another "
            "folder with MPSPMD_RUNTIME_DIR"
        )
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SegmentError(
            f"the socket's path {path} has {len(os.fsencode(path))} bytes, and {MAX_SOCKET_PATH} are "
            "allowed: choose a shorter folder with MPSPMD_RUNTIME_DIR"
        )


def is_utf8(path: Path) -> bool:
    """Names of files are any bytes."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


class _Mailbox:
    """Lets other threads send through the thread that owns a socket."""

    def __init__(self) -> None:
        self._outgoing: queue.SimpleQueue[tuple[bytes, ToEngine | ToRank]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = pipe_above_standard(os.O_NONBLOCK)

    def put(self, identity: bytes, message: ToEngine | ToRank) -> None:
        self._outgoing.put((identity, message))
        self.wake()

    def wake(self) -> None:
        # Full: it is awake anyway. Closed: nobody sends any more.
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"!")

    def take_all(self) -> Iterable[tuple[bytes, ToEngine | ToRank]]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while not self._outgoing.empty():
            yield self._outgoing.get()

    def fileno(self) -> int:
        return self._wake_read

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


class _Plane:
    """What both ends share: one socket, one mailbox, and a wait for either or for other files."""

    def __init__(self, socket_type: int, address: str, identity: bytes | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(socket_type)
        self._socket.linger = 500  # milliseconds for a last fault or goodbye to get out
        if identity is not None:
            self._socket.identity = identity
            self._socket.connect(address)
        else:
            self._socket.bind(address)
            # Whatever the umask takes away. Nobody else can enter the folder.
            os.chmod(address.removeprefix("ipc://"), 0o600)
        self._mailbox = _Mailbox()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._mailbox.fileno(), zmq.POLLIN)
        self.dropped = 0
        """Messages that could not be parsed, and were dropped."""

    def watch(self, fd: int) -> None:
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)

    def wake(self) -> None:
        """Ends the wait of the thread that owns the socket. Any thread."""
        self._mailbox.wake()

    def _wait(self, timeout_s: float) -> tuple[set[int], list[bytes]]:
        """Watched descriptors that are ready, and what has come; sends what others have put."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        for identity, message in self._mailbox.take_all():
            data = messages.encode(message)
            try:
                self._socket.send_multipart([identity, data] if identity else [data], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                logger.debug("control message %s not sent: %s", message, error)
        received = []
        while True:
            try:
                received.append(self._socket.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                break
        files = {fd for fd in ready if isinstance(fd, int) and fd != self._mailbox.fileno()}
        return files, received

    def _drop(self, data: bytes, error: Exception) -> None:
        self.dropped += 1
        notice(logger.warning, "dropped a control message of %d bytes: %s", len(data), error)

    def close(self) -> None:
        """Only the thread that waits, or any when that one has ended."""
        self._socket.close()
        self._context.term()
        self._mailbox.close()


class EnginePlane(_Plane):
    """The engine's end. `poll` and `close`: one thread; `send`: any."""

    def __init__(self, address: str) -> None:
        super().__init__(zmq.ROUTER, address)

    def send(self, rank: int, message: ToRank) -> None:
        self._mailbox.put(_identity(rank), message)

    def poll(self, timeout_s: float) -> tuple[set[int], list[ToEngine]]:
        files, received = self._wait(timeout_s)
        parsed: list[ToEngine] = []
        for data in received:
            try:
                parsed.append(messages.decode_to_engine(data))
            except msgspec.DecodeError as error:
                self._drop(data, error)
        return files, parsed


class RankPlane(_Plane):
    """A rank's end. `poll` and `close`: one thread; `send`: any."""

    def __init__(self, address: str, rank: int) -> None:
        super().__init__(zmq.DEALER, address, _identity(rank))

    def send(self, message: ToEngine) -> None:
        self._mailbox.put(b"", message)

    def poll(self, timeout_s: float) -> tuple[set[int], list[ToRank]]:
        files, received = self._wait(timeout_s)
        parsed: list[ToRank] = []
        for data in received:
            try:
                parsed.append(messages.decode_to_rank(data))
            except msgspec.DecodeError as error:
                self._drop(data, error)
        return files, parsed


def _identity(rank: int) -> bytes:
    return b"rank-%d" % rank
