"""The head's bridge, in this process and with no other node."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_port

from mpspmd import RuntimeConfig
from mpspmd.bridge.head import HeadBridge
from mpspmd.bridge.place import NodePlace
from mpspmd.bridge.sockets import listen
from mpspmd.bridge.start import BridgeStart
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.transport.channel import ChannelSegments
from mpspmd.transport.descriptor import Descriptor


@pytest.fixture
def start(tmp_path: Path) -> Iterator[BridgeStart]:
    place = NodePlace(0, 2, 1, "127.0.0.1", free_port())
    engines_end, commands = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    deaths = os.eventfd(0)
    listener = listen(place)
    with engines_end, open(read, "rb"):
        yield BridgeStart(
            place=place,
            keys=None,
            segments=ChannelSegments.create(2, RuntimeConfig()),
            run_dir=tmp_path,
            listener=listener,
            commands=Descriptor(commands.detach()),
            ends={1: Descriptor(write)},
            deaths=Descriptor(deaths),
            death_pipe=DeathPipe(),
            settings={},
            node_timeout_s=3.0,
            worker=b"",
            step_codec=b"",
            hash_seed="1",
            signals_of_engine=frozenset(),
        )
    os.close(deaths)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("thread", ["_copy_requests", "_take_frames"])
def test_the_bridge_ends_when_one_of_its_threads_fails(start: BridgeStart, thread: str) -> None:
    def fail(bridge: HeadBridge) -> None:
        raise ValueError("on purpose")

    bridge = type("Failing", (HeadBridge,), {thread: fail})(start)
    with pytest.raises(ValueError, match="on purpose"):
        bridge.run()
    bridge._serving.is_closing = True
    bridge._channel.tap.interrupt()
    bridge._serving.close()
    bridge._socket.close(linger_ms=0)
    bridge._plane.close()
    bridge._channel._liveness.close()
