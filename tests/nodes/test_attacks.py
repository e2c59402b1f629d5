"""Who doesn't know the secret of a run can do nothing at its port."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from cluster import SECRET, Cluster
from simulated_nodes import SimulatedNodes, needs_nodes

from mpspmd.bridge.keys import keys_from
from mpspmd.bridge.link import greeting
from mpspmd.bridge.messages import PROTOCOL, Join

pytestmark = needs_nodes

ATTACK = Path(__file__)


def join() -> bytes:
    return greeting(Join(PROTOCOL, "0.1.0", 1, 2, 1, 2, "an attacker"))


def connected(
    secret: str | None, port: int
) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    """A socket as a node's, with the keys of this secret; or with none."""
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    peer.routing_id = b"node-1-attacker"
    if secret is not None:
        keys = keys_from({"MPSPMD_SECRET": secret})
        assert keys is not None
        peer.curve_serverkey = keys.head.public
        peer.curve_publickey, peer.curve_secretkey = keys.node.public, keys.node.secret
    peer.connect(f"tcp://10.77.0.1:{port}")
    return context, peer


def is_answered(secret: str | None, port: int, within_s: float = 1.5) -> bool:
    context, peer = connected(secret, port)
    peer.send(join())
    answered = bool(peer.poll(1000 * within_s))
    peer.close()
    context.term()
    return answered


@pytest.fixture(scope="module")
def run(two: SimulatedNodes):  # type: ignore[no-untyped-def]
    with Cluster(two) as cluster:
        yield cluster.ready()


def test_only_who_knows_the_secret_is_answered(two: SimulatedNodes, run: Cluster) -> None:
    with two[1].network():
        assert not is_answered(None, run.port)
        assert not is_answered("f" * 64, run.port)
        assert is_answered(SECRET, run.port, 20)  # refused, because node 1 is there
    assert run.call("execute_model", 1) == [[0, 1], [1, 1]]


def test_the_right_server_key_alone_does_not_help(two: SimulatedNodes, run: Cluster) -> None:
    """Public keys aren't meant to be secret. So the head wants the node's own key too."""
    with two[1].network():
        context, peer = connected(SECRET, run.port)
        peer.close()
        peer = context.socket(zmq.DEALER)
        peer.linger = 0
        keys = keys_from({"MPSPMD_SECRET": SECRET})
        assert keys is not None
        peer.curve_serverkey = keys.head.public
        peer.curve_publickey, peer.curve_secretkey = zmq.curve_keypair()
        peer.connect(f"tcp://10.77.0.1:{run.port}")
        peer.send(join())
        assert not peer.poll(1500)
        peer.close()
        context.term()


def test_bytes_that_were_recorded_are_refused_when_they_are_replayed(
    two: SimulatedNodes, run: Cluster
) -> None:
    recorded: list[bytes] = []
    with two[1].network(), socket.create_server(("10.77.0.2", 7001)) as relay:
        keys = keys_from({"MPSPMD_SECRET": SECRET})
        assert keys is not None
        context = zmq.Context()
        peer = context.socket(zmq.DEALER)
        peer.linger = 0
        peer.curve_serverkey = keys.head.public
        peer.curve_publickey, peer.curve_secretkey = keys.node.public, keys.node.secret
        peer.connect("tcp://10.77.0.2:7001")
        peer.send(join())
        there = relay.accept()[0]
        head = socket.create_connection(("10.77.0.1", run.port))
        end = time.monotonic() + 20
        there.settimeout(0.05)
        head.settimeout(0.05)
        while time.monotonic() < end and not peer.poll(0):
            for source, target in ((there, head), (head, there)):
                try:
                    data = source.recv(1 << 16)
                except TimeoutError:
                    continue
                target.sendall(data)
                if source is there:
                    recorded.append(data)
        assert peer.poll(0), "the relay doesn't disturb the handshake"
        for each in (there, head):
            each.close()
        peer.close()
        context.term()
        with socket.create_connection(("10.77.0.1", run.port)) as again:
            answer = b""
            again.settimeout(3)
            try:
                for data in recorded:
                    again.sendall(data)
                    time.sleep(0.05)
                while data := again.recv(1 << 16):
                    answer += data
            except (TimeoutError, ConnectionError):
                pass
        # The greeting, a WELCOME at most; and no READY, which would come after the recorded INITIATE.
        assert b"READY" not in answer
    assert run.call("execute_model", 1) == [[0, 1], [1, 1]]


def flood(port: int, connections: int) -> None:
    """Random bytes, halves of handshakes, and lengths that promise much."""
    chance = random.Random(1)
    greeting_of_zmtp = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15 + 1 + 31)
    open_ones: list[socket.socket] = []
    for number in range(connections):
        kind = number % 4
        data = chance.randbytes(chance.randrange(1, 400))
        if kind == 1:
            data = greeting_of_zmtp + b"\x04" + bytes([200]) + b"\x05HELLO" + chance.randbytes(194)
        elif kind == 2:
            data = greeting_of_zmtp + b"\x06" + struct.pack(">Q", 1 << 40) + chance.randbytes(100)
        elif kind == 3:
            data = greeting_of_zmtp + b"\x06" + struct.pack(">Q", 60_000) + chance.randbytes(5_000)
        try:
            peer = socket.create_connection(("10.77.0.1", port), 2)
            peer.sendall(data)
        except OSError:
            continue
        open_ones.append(peer)
        if len(open_ones) > 200:
            open_ones.pop(0).close()


@pytest.mark.parametrize(
    "connections",
    [1_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_a_flood_leaves_memory_bounded_and_the_run_goes_on(
    two: SimulatedNodes, run: Cluster, connections: int, eventually: Callable[..., None]
) -> None:
    bridge = run.bridge()
    before = bridge.memory_info().rss
    attacker = two[1].start(
        sys.executable, ATTACK, str(run.port), str(connections), stderr=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    most, calls = 0, 0
    while attacker.poll() is None:
        assert run.call("execute_model", calls) == [[0, calls], [1, calls]]
        most = max(most, bridge.memory_info().rss)
        calls += 1
    assert attacker.returncode == 0, attacker.stderr.read()  # type: ignore[union-attr]
    attacker.stderr.close()  # type: ignore[union-attr]
    assert calls > 10
    assert most - before < 100 << 20
    eventually(lambda: bridge.num_fds() < 100, "the bridge has closed the connections", 60)
    assert run.call("execute_model", 1) == [[0, 1], [1, 1]]
    print(f"{connections} connections: {calls} calls meanwhile, {(most - before) >> 10} KiB more")


@pytest.mark.slow
def test_connections_that_use_up_the_bridges_descriptors_do_not_disturb_connected_nodes(
    two: SimulatedNodes, run: Cluster
) -> None:
    bridge = run.bridge()
    limits = bridge.rlimit(resource.RLIMIT_NOFILE)
    few = bridge.num_fds() + 40
    bridge.rlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    with two[1].network(), contextlib.ExitStack() as held:
        for _ in range(3 * 40):
            peer = held.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex(("10.77.0.1", run.port))
        end = time.monotonic() + 20
        while bridge.num_fds() < few:
            assert time.monotonic() < end
        for number in range(200):
            assert run.call("execute_model", number) == [[0, number], [1, number]]
    bridge.rlimit(resource.RLIMIT_NOFILE, limits)
    with two[1].network():
        assert is_answered(SECRET, run.port, 20)


def test_the_head_listens_at_the_named_address_only(two: SimulatedNodes, run: Cluster) -> None:
    listening = two[0].start("ss", "-Hltn", stdout=subprocess.PIPE, text=True)
    lines = listening.communicate(timeout=20)[0].splitlines()
    assert [line.split()[3] for line in lines] == [f"10.77.0.1:{run.port}"]


if __name__ == "__main__":
    flood(int(sys.argv[1]), int(sys.argv[2]))
