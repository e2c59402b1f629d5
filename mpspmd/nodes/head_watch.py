"""HeadWatch: notices that the head is gone."""

from __future__ import annotations

import logging
import time

from mpspmd.bridge.link import Link
from mpspmd.bridge.sockets import addresses_of, is_refused
from mpspmd.nodes.connection import Connection

logger = logging.getLogger(__name__)

_SILENT_S = 0.6
"""A longer silence is logged."""
_PAUSE_S = 1.0
"""If nobody has asked for so long, this process has been stopped: it was not the head that was silent."""


class HeadWatch:
    """The thread that serves a node asks it again and again."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        # While there is no connection the name service may not answer either.
        self._head = addresses_of(connection.place)
        self._is_silent = False
        self._asked = time.monotonic()

    def why_lost(self, link: Link) -> str:
        """Why the head is lost, or "". It takes up to 0.2 s while there is no connection."""
        now = time.monotonic()
        if now - self._asked > _PAUSE_S:
            link.heard = now
        self._asked = now
        silence_s = now - link.heard
        connection, address = self._connection, self._connection.place.address
        connection.socket.watch()
        if connection.refused:
            return connection.refused
        if silence_s > self._timeout_s:
            return f"it has been silent for {self._timeout_s:g} s (MPSPMD_NODE_TIMEOUT_S)"
        if not connection.socket.is_connected and is_refused(self._head):
            return "nobody listens there any more"
        if silence_s > _SILENT_S and not self._is_silent:
            self._is_silent = True
            logger.warning("the head at %s is silent", address)
        elif silence_s < _SILENT_S / 2 and self._is_silent:
            self._is_silent = False
            logger.warning("the head at %s answers again", address)
        return ""
