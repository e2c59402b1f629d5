"""Sockets: the two ends of the connections between nodes, over TCP.

ZeroMQ carries the frames, reconnects, and does the encryption (CURVE). A socket may be used by several
threads as long as they take turns, so each call here is made with the bridge's lock held.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from mpspmd.bridge.keys import Keys
from mpspmd.bridge.link import MAX_FRAME_BYTES
from mpspmd.bridge.place import NodePlace
from mpspmd.errors import ConfigError, SegmentError
from mpspmd.transport.descriptor import Descriptor

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

_BACKLOG = 128
_HANDSHAKE_MS = 5000
"""How long a new connection may take to show that it knows the secret."""
_RECONNECT_MS = 50
_CONNECT_MS = 250
"""The kernel waits a second before it tries again to connect, and longer each time. After this time ZeroMQ
begins anew, so a round trip between nodes must be shorter."""
_SILENCE_MS = 700
"""A connection that has been silent for so long is replaced: the kernel may take seconds to send again."""

# Plain numbers: each use of ZeroMQ's enums runs Python code, in the way of every step.
_EVENTS, _POLLIN, _RCVMORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.RCVMORE)
_NOBLOCK, _NAME = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

_REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def listen(place: NodePlace) -> Descriptor:
    """The head's listening socket, on the named address only. ConfigError, SegmentError."""
    try:
        family, kind, _, _, at = socket.getaddrinfo(
            place.head, place.port, type=socket.SOCK_STREAM
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"head={place.head!r}: can't be resolved: {error}") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(at)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SegmentError(
            f"the head can't listen at {place.address}: {error.strerror}; it must be an address of this "
            "machine with a free port"
        ) from error
    return Descriptor(listener.detach())


class _Frames:
    """What both ends have in common."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        # The methods of zmq.Socket's base class. What zmq.Socket adds to them takes time in every step.
        plain: Any = super(zmq.Socket, self._socket)
        self._send_part, self._receive, self._option = plain.send, plain.recv, plain.get
        self._socket.linger = 0
        # What is unacknowledged is limited by the rings, and ZeroMQ must not drop any of it.
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.maxmsgsize = MAX_FRAME_BYTES
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _SILENCE_MS // 2)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TTL, 2 * _SILENCE_MS)
        self._poller = select.poll()
        self._poller.register(self._option(zmq.FD), select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Waits until frames may have come. Only one thread calls it, without the lock.

        A thread that has sent a frame must also check for frames: sending may have taken away what would
        have ended this wait.
        """
        return bool(self._poller.poll(timeout_s * 1000))

    def _last_part(self) -> bytes | None:
        """The last part of a message. If more than one part is left, drops them all and returns None."""
        part: bytes | None = self._receive(_NOBLOCK)
        while self._option(_RCVMORE):
            self._receive(_NOBLOCK)
            part = None
        return part


class HeadSocket(_Frames):
    """Frames from and to all other nodes, each with the name that its sender has chosen."""

    def __init__(self, place: NodePlace, keys: Keys | None, listener: Descriptor) -> None:
        super().__init__(zmq.ROUTER)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # A node that connects anew is heard at once, also before the old connection has ended.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._authenticator: ThreadAuthenticator | None = None
        if keys is not None:
            from zmq.auth.thread import ThreadAuthenticator

            self._authenticator = ThreadAuthenticator(
                self._context, log=logging.getLogger("mpspmd.bridge.zap")
            )
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", _Only(keys.node.public))
            self._socket.curve_server = True
            self._socket.curve_publickey = keys.head.public
            self._socket.curve_secretkey = keys.head.secret
        self._socket.setsockopt(zmq.USE_FD, listener.fd)
        if ":" in place.head:
            self._socket.ipv6 = True
        self._socket.bind(f"tcp://{place.address}")

    def send(self, name: bytes, frame: bytes) -> bool:
        """False when that node isn't connected."""
        try:
            self._send_part(name, _NAME)
            self._send_part(frame, _NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH
            return False
        return True

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """All that have come, each as its sender's name and the frame."""
        while self._option(_EVENTS) & _POLLIN:
            name = self._receive(_NOBLOCK)
            if (frame := self._last_part()) is not None:
                yield name, frame

    def close(self, linger_ms: int) -> None:
        self._socket.close(linger_ms)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()


class _Only:
    """Allows one public key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._key


class NodeSocket(_Frames):
    """Frames from and to the head. It connects, and connects again, by itself."""

    def __init__(self, place: NodePlace, keys: Keys | None, name: bytes) -> None:
        super().__init__(zmq.DEALER)
        self._socket.routing_id = name
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a connection
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        if keys is not None:
            self._socket.curve_serverkey = keys.head.public
            self._socket.curve_publickey = keys.node.public
            self._socket.curve_secretkey = keys.node.secret
        if ":" in place.head:
            self._socket.ipv6 = True
        self._monitor = self._socket.get_monitor_socket(
            _REFUSALS | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        self.refusals = 0
        """How often the head has refused this node's keys since it last accepted them."""
        self.is_connected = False
        self._socket.connect(f"tcp://{place.address}")

    def send(self, frame: bytes) -> bool:
        """False when there is no connection."""
        try:
            self._send_part(frame, _NOBLOCK)
        except zmq.ZMQError:  # EAGAIN
            return False
        return True

    def frames(self) -> Iterator[bytes]:
        """All that have come."""
        while self._option(_EVENTS) & _POLLIN:
            if (frame := self._last_part()) is not None:
                yield frame

    def watch(self) -> bool:
        """Takes note of what has become of the connection. True if it has just ended."""
        ended = False
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event & _REFUSALS:
                self.refusals += 1
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.refusals, self.is_connected = 0, True
            elif event == zmq.EVENT_DISCONNECTED:
                ended, self.is_connected = self.is_connected, False
        return ended

    def close(self, linger_ms: int) -> None:
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close(linger_ms)
        self._context.term()


def addresses_of(place: NodePlace) -> list[Any]:
    """The head's addresses, as `socket.getaddrinfo` gives them; none if its name can't be resolved now."""
    try:
        return socket.getaddrinfo(place.head, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def is_refused(head: list[Any]) -> bool:
    """Whether the head's machine answers that nobody listens at its port. It takes up to 0.2 s for each
    address."""
    return bool(head) and all(_try(*each) == errno.ECONNREFUSED for each in head)


def _try(family: int, kind: int, protocol: int, name: str, address: Any) -> int:
    """The error number of an attempt to connect; 0 if it succeeds."""
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(address)
    except OSError as error:
        return error.errno or 0
