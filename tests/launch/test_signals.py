"""Stopping a launched run from outside."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("works", signal.SIGINT),
        pytest.param("works", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("waits", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_lets_the_workers_shut_down_and_nothing_is_said(
    launch: Any, tmp_path: Path, eventually: Any, what: str, number: signal.Signals
) -> None:
    launched = launch("-n", "2", "app.py", what)
    eventually(launched.starts, "the ranks are there", 100)
    time.sleep(0.2)
    sent = time.monotonic()
    os.killpg(launched.process.pid, number)
    assert launched.result() == (128 + number, "", "")
    assert time.monotonic() - sent < 40
    assert sorted(path.name for path in tmp_path.glob("shutdown-*")) == ["shutdown-0", "shutdown-1"]
    assert launched.processes() == []
    assert launched.leftovers() == []


def test_ctrl_c_ends_ranks_that_are_still_importing(
    launch: Any, tmp_path: Path, eventually: Any
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "if 'RANK' in os.environ:\n"
        "    pathlib.Path(os.environ['MARKS'], 'importing').touch()\n"
        "    time.sleep(600)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import app\n"
        "from mpspmd import run\n"
        "pathlib.Path(os.environ['MARKS'], 'running').touch()\n"
        "run(app.Actor, print, args=('',))\n"
    )
    launched = launch("-n", "1", str(script), str(Path(__file__).parent))
    eventually((tmp_path / "importing").exists, "the rank imports", 60)
    # A Ctrl-C while the engine's script imports has Python's own traceback.
    eventually((tmp_path / "running").exists, "the engine waits for its rank", 60)
    # The launcher has a folder, too.
    eventually(lambda: len(list(tmp_path.glob("mpspmd-*"))) == 2, "it has a folder", 60)
    time.sleep(0.5)
    os.killpg(launched.process.pid, signal.SIGINT)
    assert launched.result(50) == (130, "", "")
    assert launched.processes() == []
    assert launched.leftovers() == []


def test_when_the_launcher_is_killed_everything_ends(
    launch: Any, tmp_path: Path, eventually: Any
) -> None:
    launched = launch("-n", "2", "app.py", "works")
    eventually(launched.starts, "the ranks are there", 100)
    launched.process.kill()
    assert launched.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_launcher_that_waits_for_node_0(
    launch: Any, eventually: Any, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node_0:
        node_0.settimeout(60)
        port = str(node_0.getsockname()[1])
        place = ("--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1")
        launched = launch("-n", "1", *place, "--master-port", port, "app.py")
        with node_0.accept()[0]:  # it waits for an answer, in torch's C++ code
            os.killpg(launched.process.pid, number)
            assert launched.result(30) == (128 + number, "", "")
    eventually(lambda: launched.processes(janitors=True) == [], "the janitor has ended", 30)
    assert launched.leftovers() == []
