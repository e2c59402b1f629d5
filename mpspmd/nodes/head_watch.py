"""HeadWatch: notices that the head is gone."""

from __future__ import annotations

from mpspmd.bridge.link import Link
from mpspmd.bridge.silence import Silence
from mpspmd.bridge.sockets import addresses_of, is_refused
from mpspmd.nodes.connection import Connection


class HeadWatch:
    """The thread that serves a node asks it again and again."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        # While there is no connection the name service may not answer either.
        self._head = addresses_of(connection.place)
        self._silence = Silence(f"the head at {connection.place.address}", timeout_s)

    def why_lost(self, link: Link) -> str:
        """Why the head is lost, or "". It takes up to 0.2 s while there is no connection."""
        connection = self._connection
        connection.socket.watch()
        if connection.refused:
            return connection.refused
        if self._silence.is_too_long(link):
            return f"it has been silent for {self._timeout_s:g} s (MPSPMD_NODE_TIMEOUT_S)"
        if not connection.socket.is_connected and is_refused(self._head):
            return "nobody listens there any more"
        return ""
