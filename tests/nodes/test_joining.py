"""Which nodes may take part in a run, and what both sides say to those that may not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq
from cluster import MEMBER, SECRET, Cluster
from simulated_nodes import SimulatedNodes, needs_nodes

from mpspmd import errors
from mpspmd.bridge.keys import keys_from
from mpspmd.bridge.link import greeting
from mpspmd.bridge.messages import Refused
from mpspmd.bridge.place import NodePlace
from mpspmd.nodes.connection import Connection
from mpspmd.threads import start_thread


@needs_nodes
@pytest.mark.slow
def test_nodes_may_start_in_any_order(two: SimulatedNodes) -> None:
    with Cluster(two, start=False) as run:
        node = run.start(1)
        time.sleep(6)
        run.members.insert(0, run.start(0))
        del run.members[-1]
        assert len(run.ready().call("place")) == 2
        assert run.end() == [0, 0]
        assert "node 1 waits for the head at node0:" in node.stderr.read()  # type: ignore[union-attr]


@needs_nodes
def test_another_secret_is_refused_and_the_head_waits_on(two: SimulatedNodes) -> None:
    with Cluster(two, start=False) as run:
        run.start(0)
        run.start(1, MPSPMD_SECRET="f" * 64)
        error = run.line(1)
        assert error["error"] == "ConfigError"
        assert "secret" in error["text"]
        assert "f" * 8 not in error["text"]
        run.members[1].wait(60)
        run.start(1)
        assert run.ready().call("execute_model", 1) == [[0, 1], [1, 1]]
        assert run.end()[0] == 0


@needs_nodes
@pytest.mark.parametrize("shape", [[1, 3, 1], pytest.param([1, 2, 3], marks=pytest.mark.slow)])
def test_another_shape_of_the_run_is_an_error_on_both_sides(
    two: SimulatedNodes, shape: list[int]
) -> None:
    with Cluster(two, start=False) as run:
        run.start(0)
        run.start_as(shape, 1)
        cause = f"started with world_size={shape[1] * shape[2]}, and the head with 2"
        error = run.line(1)
        assert error["error"] == "ConfigError"
        assert cause in error["text"]
        error = run.line(0)
        assert error["error"] == "StartupError"
        assert cause in error["text"]
        assert run.end() == [3, 3]


@needs_nodes
def test_two_nodes_with_one_rank_are_an_error_on_both_sides(two: SimulatedNodes) -> None:
    with Cluster(two, start=False, how="hangs on 1") as run:
        run.start(0)
        run.start(1)
        deadline = time.monotonic() + 60
        while len(two[1].processes()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        run.start(1)
        error = run.line(2)
        assert error["error"] == "ConfigError"
        assert "node 1 has joined from node1" in error["text"]
        assert "node 1 has joined from node1" in run.line(0)["text"]
        assert run.end() == [3, 1, 3]


@needs_nodes
@pytest.mark.slow
def test_a_late_node_does_not_disturb_a_run(two: SimulatedNodes) -> None:
    with Cluster(two) as run:
        run.ready()
        run.start(1)
        assert "has joined from" in run.line(2)["text"]
        assert run.call("execute_model", 1) == [[0, 1], [1, 1]]
        assert run.end() == [0, 0, 3]


@needs_nodes
def test_a_node_without_a_folder_is_an_error_on_both_sides_also_with_a_name_that_is_not_utf_8(
    two: SimulatedNodes,
) -> None:
    with Cluster(two, start=False) as run:
        run.start(0)
        run.start(1, MPSPMD_RUNTIME_DIR=os.fsdecode(b"/none/\xff"))
        error = run.line(1)
        assert error["error"] == "SegmentError"
        assert "/none/" in error["text"]
        error = run.line(0)
        assert error["error"] == "StartupError"
        assert r"/none/\udcff" in error["causes"]["1"]
        assert run.end() == [3, 3]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"short", id="no frame"),
        pytest.param(greeting(Refused("")).replace(b"refused", b"unknown"), id="no message"),
        pytest.param(greeting(Refused("x" * 9)).replace(b"x", b"\xff"), id="no text"),
    ],
)
def test_a_head_that_speaks_otherwise_is_an_error_that_names_it(frame: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as head:
        head.linger = 0
        port = head.bind_to_random_port("tcp://127.0.0.1")
        with Connection(NodePlace(1, 2, 1, "127.0.0.1", port), None) as node:
            answer = start_thread(
                lambda: head.send_multipart([head.recv_multipart()[0], frame]), name="head"
            )
            with pytest.raises(errors.ConfigError, match=rf"127\.0\.0\.1:{port}.*same version"):
                node.join(20)
            answer.join()


@needs_nodes
def test_a_head_that_never_comes_is_an_error_that_names_it(two: SimulatedNodes) -> None:
    with Cluster(two, start=False, MPSPMD_START_TIMEOUT_S="1") as run:
        run.start(1)
        error = run.line(0)
        assert error["error"] == "StartupError"
        assert "node0" in error["text"]
        assert "MPSPMD_START_TIMEOUT_S" in error["text"]


@needs_nodes
def test_a_node_that_never_comes_is_an_error_that_names_it(two: SimulatedNodes) -> None:
    with Cluster(two, start=False, MPSPMD_START_TIMEOUT_S="4") as run:
        run.start(0)
        error = run.line(0)
        assert error["error"] == "StartupError"
        assert "waits for node 1" in error["causes"]["1"]
        assert run.end() == [3]
        assert two[0].leftovers() == []


@needs_nodes
def test_a_port_that_is_taken_is_an_error_that_names_it(two: SimulatedNodes) -> None:
    with Cluster(two, start=False) as run:
        listen = (
            f"import socket, time; server = socket.create_server(('', {run.port})); "
            "print('on', flush=True); time.sleep(60)"
        )
        other = two[0].start(sys.executable, "-c", listen, stdout=subprocess.PIPE)
        assert other.stdout.readline() == b"on\n"
        run.start(0)
        error = run.line(0)
        assert error["error"] == "SegmentError"
        assert f"node0:{run.port}" in error["text"]
        other.kill()
        other.wait()
        other.stdout.close()


def test_without_a_secret_a_run_over_nodes_is_refused_with_the_remedy() -> None:
    environment = {name: text for name, text in os.environ.items() if "SECRET" not in name}
    head = subprocess.run(
        [sys.executable, MEMBER, "0", "2", "1", "127.0.0.1", "7099"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert head.returncode == 3
    assert "openssl rand -hex 32" in head.stdout


def test_a_secret_comes_from_a_file_or_a_variable_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    keys = keys_from({"MPSPMD_SECRET_FILE": str(file)})
    assert keys == keys_from({"MPSPMD_SECRET": SECRET})
    assert keys != keys_from({"MPSPMD_SECRET": SECRET + "0"})
    assert SECRET not in repr(keys)
    assert keys_from({"MPSPMD_SECRET": "none"}) is None
    no_utf8 = "\udcff" * 16  # as os.environ has it
    assert keys_from({"MPSPMD_SECRET": no_utf8}) is not None
    for environ in ({}, {"MPSPMD_SECRET": "short"}, {"MPSPMD_SECRET_FILE": str(tmp_path / "no")}):
        with pytest.raises(errors.ConfigError) as raised:
            keys_from(environ)
        assert "'short'" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ((2, 2, 1, "head", 7000), "node_rank=2"),
        ((0, 0, 1, "head", 7000), "num_nodes=0"),
        ((0, 33, 2, "head", 7000), "num_nodes=33"),
        ((0, 2, 1, "", 7000), "head=''"),
        ((0, 2, 1, "tcp://10.0.0.1", 7000), "head='tcp://10.0.0.1'"),
        ((0, 2, 1, "10.0.0.1:7000", 7000), "head='10.0.0.1:7000'"),
        ((0, 2, 1, "[::1]", 7000), r"head='\[::1\]'"),
        ((0, 2, 1, "node 0", 7000), "head='node 0'"),
        ((0, 2, 1, None, 7000), "head=None"),
        ((0, 2, 1, "head", 65535), "port=65535"),
        ((0, 2, "1", "head", 7000), "local_world_size='1'"),
    ],
)
def test_an_impossible_place_is_refused(fields: tuple[object, ...], named: str) -> None:
    with pytest.raises(errors.ConfigError, match=named):
        NodePlace(*fields)  # type: ignore[arg-type]
