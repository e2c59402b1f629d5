"""free_port: a port that stays free until a program listens there, seconds later."""

from __future__ import annotations

import contextlib
import random
import socket

_BELOW_EPHEMERAL = range(20_000, 32_000)
"""The kernel gives none of these to whoever asks for any port."""


def free_port(address: str = "127.0.0.1") -> int:
    while True:
        port = random.choice(_BELOW_EPHEMERAL)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind((address, port))
            return port
