"""What the engine makes of the ranks on other nodes, as the bridge reports them."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mpspmd.bridge.messages import Ended, NodeGone
from mpspmd.bridge.place import NodePlace
from mpspmd.bridge.remote import Remote, RemoteProcess
from mpspmd.config import RuntimeConfig
from mpspmd.control.messages import encode
from mpspmd.processes.exit_status import PENDING
from mpspmd.processes.process import Usage


class Line:
    def snapshot(self) -> dict[str, Any]:
        return {"pid": 55}


@pytest.fixture
def rank() -> Any:
    """A process of rank 3, on node 1 of 2, and the end of its pipe that the bridge has."""
    read, write = os.pipe()
    remote: Any = SimpleNamespace(usages={}, end_of_bridge=lambda: NodeGone("no bridge"))
    place = NodePlace(0, 2, 2, "head", 7000)
    process = RemoteProcess(3, place, read, Line(), remote)  # type: ignore[arg-type]
    yield process, write
    process.close()


def test_a_rank_lives_until_the_bridge_says_how_it_has_ended(rank: Any) -> None:
    process, bridges_end = rank
    assert process.is_alive()
    assert (process.pid, process.node, process.exit_reason()) == (55, 1, PENDING)
    os.write(bridges_end, encode(Ended(3, 77, -9, "killed by SIGKILL")))
    os.close(bridges_end)
    assert not process.is_alive()
    assert (process.pid, process.exit_code) == (77, -9)
    assert process.exit_reason() == "killed by SIGKILL"
    assert process.lost_with == ()
    assert process.usage() is None


def test_all_ranks_of_a_node_are_lost_with_it_and_with_the_bridge(rank: Any) -> None:
    process, bridges_end = rank
    os.close(bridges_end)
    assert not process.is_alive()
    assert process.lost_with == (2, 3)
    assert process.exit_reason() == "no bridge"
    assert process.exit_code is None


@pytest.mark.parametrize(
    ("state", "silent_s", "gives_up"),
    [
        ("sleeping", 2.0, False),
        ("stopped", 4.0, True),
        ("running", 4.0, False),  # it waits for a core
        ("sleeping", 31.0, True),
    ],
)
def test_a_bridge_is_given_up_when_it_is_stopped_or_silent_for_very_long(
    state: str, silent_s: float, gives_up: bool
) -> None:
    lost: list[str] = []
    process = SimpleNamespace(is_alive=lambda: True, lose=lost.append)
    remote: Any = SimpleNamespace(
        _bridge=SimpleNamespace(pid=5, usage=lambda: Usage(state, 0.0)),
        _heard=time.monotonic() - silent_s,
        _config=RuntimeConfig(node_timeout_s=3.0),
        _processes=[process],
    )
    assert Remote.check(remote) is gives_up
    assert len(lost) == gives_up
