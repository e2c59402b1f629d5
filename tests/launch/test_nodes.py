"""Two nodes: network namespaces of their own on this machine, joined by a cable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

_HERE = Path(__file__).parent
_ADDRESSES = ("10.231.17.1", "10.231.17.2")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """The names of two namespaces with _ADDRESSES."""
    names = [f"mpspmd-{os.getpid()}-{number}" for number in range(2)]
    ends = [f"v{os.getpid() % 100000}-{number}" for number in range(2)]
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
            _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not make network namespaces")
        for name, end, address in zip(names, ends, _ADDRESSES, strict=True):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_ranks_on_two_nodes_meet_through_c10d(nodes: list[str], tmp_path: Path) -> None:
    launchers = [
        subprocess.Popen(
            [
                "ip", "netns", "exec", name,
                sys.executable, "-c", "from mpspmd.cli.launch.main import main; main()",
                "-n", "2", "--ranks-only", "--nnodes", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", f"{_ADDRESSES[0]}:29400", "--rdzv-id", "pair",
                "--local-addr", address, str(_HERE / "torchrun_script.py"), "--lr", "0.1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path), "GLOO_SOCKET_IFNAME": _interface(name)},
        )
        for name, address in zip(nodes, _ADDRESSES, strict=True)
    ]  # fmt: skip
    try:
        results = [launcher.communicate(timeout=150) for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    lines = sorted(line for out, _ in results for line in out.splitlines())
    assert [launcher.returncode for launcher in launchers] == [0, 0], results
    assert [line.partition(" ")[0] for line in lines] == [
        "[rank0]",
        "[rank1]",
        "[rank2]",
        "[rank3]",
    ]
    assert len({line.partition(" ")[2] for line in lines}) == 1
    assert "sum 10.0 of 4" in lines[0]


def _interface(namespace: str) -> str:
    """The end of the cable that lies in it."""
    shown = subprocess.run(
        ["ip", "-n", namespace, "-br", "link"], capture_output=True, text=True, check=True
    )
    names = [line.split("@")[0].split()[0] for line in shown.stdout.splitlines()]
    return next(name for name in names if name != "lo")
