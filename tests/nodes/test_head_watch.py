"""What a node takes for a sign that the head is gone."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from mpspmd.bridge.link import Link
from mpspmd.bridge.place import NodePlace
from mpspmd.nodes.connection import Connection
from mpspmd.nodes.head_watch import HeadWatch


def test_a_silent_head_is_lost_although_the_name_service_hangs_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve = socket.getaddrinfo

    def resolve_slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(1.2)
        return resolve(*args, **kwargs)

    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as head:
        place = NodePlace(1, 2, 1, "localhost", head.getsockname()[1])
        with Connection(place, None) as connection:
            watch = HeadWatch(connection, timeout_s=0.5)
            link = Link(b"session!", [], [], lambda frame: True)
            monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
            until = time.monotonic() + 60
            while not (why := watch.why_lost(link)) and time.monotonic() < until:
                time.sleep(0.05)
    assert why == "it has been silent for 0.5 s (MPSPMD_NODE_TIMEOUT_S)"
