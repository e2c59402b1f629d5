"""The simulated nodes are as separate as real ones, and their links fail as real ones do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from simulated_nodes import SimulatedNode, SimulatedNodes, ending, needs_nodes, pid_on_node

pytestmark = needs_nodes

TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=20) as peer:
    peer.settimeout(20)
    for line in sys.stdin:
        peer.sendall(line.encode())
        print(peer.recv(100).decode(), end="", flush=True)
"""
ECHO = """
import socket
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    with server.accept()[0] as peer:
        while data := peer.recv(100):
            peer.sendall(data)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[SimulatedNodes]:
    with SimulatedNodes(2) as both:
        yield both


def output(node: SimulatedNode, *command: str) -> str:
    out: str = node.start(*command, stdout=subprocess.PIPE, text=True).communicate(timeout=30)[0]
    return out.strip()


def pair(nodes: SimulatedNodes) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """An echo on node 0, and on node 1 a program that sends it each line of its stdin."""
    server = nodes[0].start("python", "-c", ECHO, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "listening\n"
    client = nodes[1].start(
        "python", "-c", TALK, "node0", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return server, client


def say(client: subprocess.Popen[str], line: str) -> str:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(line + "\n")
    client.stdin.flush()
    return client.stdout.readline().strip()


def test_a_node_has_its_own_address_name_loopback_processes_and_shared_memory(
    nodes: SimulatedNodes, eventually: Any
) -> None:
    assert [output(node, "hostname") for node in nodes] == ["node0", "node1"]
    assert [output(node, "hostname", "-i") for node in nodes] == ["10.77.0.1", "10.77.0.2"]
    # Another test's processes may still be about to end.
    eventually(
        lambda: [len(output(node, "ps", "-e").splitlines()) for node in nodes] == [3, 3],
        "a line of titles, process 1, and ps itself",
    )
    output(nodes[0], "touch", "/dev/shm/only-here")
    assert [node.files() for node in nodes] == [["only-here"], []]
    output(nodes[0], "rm", "/dev/shm/only-here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = (
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        )
        assert nodes[0].start("python", "-c", connect, stderr=subprocess.DEVNULL).wait(20) == 1


def test_a_test_can_use_a_nodes_network(nodes: SimulatedNodes) -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    server = nodes[1].start("python", "-c", ECHO, stdout=subprocess.PIPE, text=True)
    with ending(server):
        assert server.stdout.readline() == "listening\n"
        with nodes[0].network(), socket.create_connection(("10.77.0.2", 7000), 20) as peer:
            peer.sendall(b"hello")
            assert peer.recv(100) == b"hello"
    assert os.readlink("/proc/thread-self/ns/net") == own


def test_a_command_ends_on_a_node_as_it_does_elsewhere(nodes: SimulatedNodes) -> None:
    assert nodes[1].start("sh", "-c", "exit 7").wait(20) == 7
    sleep = nodes[1].start("sleep", "60")
    found = wait_for_process(nodes[1], "sleep")
    assert pid_on_node(found.pid) < found.pid
    found.kill()
    assert sleep.wait(20) == -signal.SIGKILL
    handled = nodes[1].start("sh", "-c", "trap 'exit 5' INT; sleep 60 & wait")
    wait_for_process(nodes[1], "sleep")
    os.killpg(handled.pid, signal.SIGINT)
    assert handled.wait(20) == 5
    nodes[1].kill_all()


def wait_for_process(node: SimulatedNode, name: str) -> psutil.Process:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for process in node.processes():
            with contextlib.suppress(psutil.Error):
                if process.name() == name:
                    return process
        time.sleep(0.01)
    raise AssertionError(f"no {name} on {node.name}")


def test_what_a_node_leaves_is_found(nodes: SimulatedNodes, eventually: Any) -> None:
    def found() -> list[str]:
        return sorted(entry.partition(" ")[2] or entry for entry in nodes[0].leftovers(0))

    assert nodes[0].leftovers() == []
    sleep = nodes[0].start("sh", "-c", "echo > $TMPDIR/file; sleep 60 & exec sleep 61")
    with ending(sleep):
        eventually(lambda: found() == ["file", "sleep 60", "sleep 61"], "two processes and a file")
        nodes[0].kill_all()
    (nodes[0].folder / "file").unlink()
    assert nodes[0].leftovers() == []


def test_packets_wait_out_a_cut_link(nodes: SimulatedNodes) -> None:
    server, client = pair(nodes)
    with ending(server, client):
        assert say(client, "before") == "before"
        nodes.cut(1)
        client.stdin.write("during\n")  # type: ignore[union-attr]
        client.stdin.flush()  # type: ignore[union-attr]
        time.sleep(0.5)
        assert client.poll() is None
        assert server.poll() is None
        nodes.mend(1)
        assert client.stdout.readline() == "during\n"  # type: ignore[union-attr]


def test_a_lost_node_sends_no_last_packet(nodes: SimulatedNodes) -> None:
    server, client = pair(nodes)
    with ending(server, client):
        say(client, "before")
        nodes.lose(1)
        assert client.wait(20) == -signal.SIGKILL
        time.sleep(0.3)
        assert server.poll() is None  # it still believes in its connection
    nodes.mend(1)


def test_a_slow_link_delays_and_loses_packets() -> None:
    with SimulatedNodes(2, delay_s=0.02, loss=0.05) as nodes:
        server, client = pair(nodes)
        with ending(server, client):
            began = time.monotonic()
            for number in range(10):
                assert say(client, str(number)) == str(number)
            # Two links, there and back.
            assert time.monotonic() - began >= 10 * 4 * 0.02
            nodes.cut(1)
            nodes.mend(1)
            assert say(client, "after") == "after"


def test_all_of_it_ends_with_the_block() -> None:
    with SimulatedNodes(1) as nodes:
        sleep = nodes[0].start("sleep", "60")
        found = wait_for_process(nodes[0], "sleep")
        folder = nodes[0].folder
    assert sleep.wait(20) == -signal.SIGKILL
    assert not found.is_running()
    assert not folder.exists()
