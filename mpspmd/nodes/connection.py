"""Connection: from a node to the head, from the first attempt on."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from types import TracebackType

from mpspmd import __version__
from mpspmd.bridge.keys import Keys
from mpspmd.bridge.link import BadFrame, greeting, greeting_in
from mpspmd.bridge.messages import PROTOCOL, Failed, Greeting, Join, Refused, Welcome
from mpspmd.bridge.place import NodePlace
from mpspmd.bridge.sockets import NodeSocket
from mpspmd.errors import ConfigError, StartupError

logger = logging.getLogger(__name__)

_ASK_S = 0.5
_NOTE_S = 5.0
_REFUSALS = 4
"""So often the head has closed the connection during the handshake before its keys are to blame."""


class Connection:
    """Made before the head is there, perhaps. One thread at a time."""

    def __init__(self, place: NodePlace, keys: Keys | None) -> None:
        self.place = place
        # A node that is started again is another one for the head.
        name = b"node-%d-" % place.node_rank + secrets.token_bytes(8)
        self.socket = NodeSocket(place, keys, name)
        self.refused = ""
        """Why the head has refused this node."""

    def join(self, timeout_s: float | None) -> Welcome:
        """Waits until the head has taken this node. Logs each 5 s what it waits for.

        Raises:
            ConfigError: The head refuses this node, or what answers is no head of this version.
            StartupError: `timeout_s` has passed; None waits without a limit.
        """
        place, began = self.place, time.monotonic()
        host = f"{socket.gethostname()}, pid {os.getpid()}"
        sizes = place.num_nodes, place.local_world_size, place.world_size
        join = greeting(Join(PROTOCOL, __version__, place.node_rank, *sizes, host))
        asked, noted = 0.0, began
        while True:
            now = time.monotonic()
            try:
                for frame in self.socket.frames():
                    if isinstance(message := self.greeting_in(frame), Welcome):
                        return message
            except BadFrame as error:
                raise ConfigError(
                    f"what answers at {place.address} isn't the head of a run with mpspmd {__version__} "
                    f"({error}): check the address and the port, and install the same version on all nodes"
                ) from error
            self.socket.watch()
            if self.refused:
                raise ConfigError(f"the head at {place.address} refuses this node: {self.refused}")
            if self.socket.refusals >= _REFUSALS:
                raise ConfigError(
                    f"the head at {place.address} closes the connection during the handshake: this node's "
                    "secret is probably another one than the head's (MPSPMD_SECRET_FILE, MPSPMD_SECRET)"
                )
            if timeout_s is not None and now - began > timeout_s:
                causes = f"the head at {place.address} has not answered within {timeout_s:g} s"
                raise StartupError(dict.fromkeys(place.ranks, f"{causes} (MPSPMD_START_TIMEOUT_S)"))
            if now - noted >= _NOTE_S:
                noted = now
                logger.warning(
                    "node %d waits for the head at %s, for %.0f s",
                    place.node_rank,
                    place.address,
                    now - began,
                )
            if now - asked >= _ASK_S and self.socket.send(join):
                asked = now
            self.socket.wait(0.02)

    def greeting_in(self, frame: bytes) -> Greeting | None:
        """What the head has said outside the session; None for another frame. Notes a refusal. BadFrame."""
        message = greeting_in(frame)
        if isinstance(message, Refused):
            self.refused = message.why
        return message

    def fail(self, why: str) -> None:
        """This node can't start its ranks."""
        self.socket.send(greeting(Failed(why)))

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self.socket.close(linger_ms=300)
