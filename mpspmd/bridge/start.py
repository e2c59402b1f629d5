"""BridgeStart: what the engine sends to its bridge's process when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpspmd.bridge.keys import Keys
from mpspmd.bridge.place import NodePlace
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.transport.channel import ChannelSegments
from mpspmd.transport.descriptor import Descriptor


@dataclass
class BridgeStart:
    """What `serve_bridge` needs."""

    place: NodePlace
    keys: Keys | None
    segments: ChannelSegments
    run_dir: Path
    listener: Descriptor
    """It listens at the port already."""
    commands: Descriptor
    """A socket by which the engine sends ToBridge messages."""
    ends: dict[int, Descriptor]
    """For each rank of another node the pipe that tells the engine how the rank has ended."""
    deaths: Descriptor
    """The engine's eventfd, which is readable when a rank has died."""
    death_pipe: DeathPipe
    settings: dict[str, Any]
    node_timeout_s: float
    worker: bytes
    step_codec: bytes
    hash_seed: str
    signals_of_engine: frozenset[int]
