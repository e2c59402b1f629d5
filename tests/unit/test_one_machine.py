"""A run on one machine has nothing of what a run over several needs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading, time
import psutil
import mpspmd

if __name__ == "__main__":
    with mpspmd.Engine(mpspmd.Worker, world_size=2) as engine:
        processes = [psutil.Process(), *map(psutil.Process, engine.pids)]
        assert not [c for p in processes for c in p.net_connections("inet")], "a port is open"
        expected = ["MainThread", "mpspmd-supervisor"]
        deadline = time.monotonic() + 20  # a slow start has another thread, which notes it
        while (names := [each.name for each in threading.enumerate()]) != expected:
            assert time.monotonic() < deadline, names
            time.sleep(0.01)
        children = {child.pid for child in psutil.Process().children()}
        extra = children - set(engine.pids)
        assert len(extra) == 1, "multiprocessing's resource tracker alone"
        bridges = [name for name in sys.modules if name.startswith(("mpspmd.bridge", "mpspmd.nodes"))]
        assert bridges == ["mpspmd.bridge", "mpspmd.bridge.place"], bridges
        places = engine.collective_rpc(lambda worker: (worker.ctx.num_nodes, worker.ctx.node_rank))
        assert places == [(1, 0), (1, 0)]
"""


def test_a_run_on_one_machine_has_no_bridge_no_port_and_no_thread_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
