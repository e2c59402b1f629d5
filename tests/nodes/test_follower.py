"""A node's follower, with no head to talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpspmd import RuntimeConfig
from mpspmd.bridge.place import NodePlace
from mpspmd.engine.ranks import WorkerSpec
from mpspmd.nodes.connection import Connection
from mpspmd.nodes.follower import Follower, the_heads_worker
from mpspmd.processes.spawn import start_ranks


def test_ctrl_c_before_its_threads_run_leaves_nothing(tmp_path: Path) -> None:
    config = RuntimeConfig(runtime_dir=str(tmp_path))
    spec = WorkerSpec(the_heads_worker, (), {}, None, None, start_ranks)
    with Connection(NodePlace(1, 2, 1, "127.0.0.1", 1), None) as connection:
        follower = Follower(connection, b"session!", config, spec)
        assert list(tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt), follower:
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
