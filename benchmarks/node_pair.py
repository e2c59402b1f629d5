"""NodePair: two network namespaces of this machine with a cable between them; and which ranks they have."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.errors import BenchmarkError

HERE, THERE = "10.78.0.1", "10.78.0.2"
_INSIDE = "_MPSPMD_BENCH_NODES"


def enter_namespace(module: str, arguments: Sequence[str]) -> None:
    """Starts this program again in a network namespace of its own; returns when it is there."""
    if os.environ.get(_INSIDE):
        return
    command = ["unshare", "--net", sys.executable, "-m", module, *arguments]
    with contextlib.suppress(OSError):
        os.execvpe("unshare", command, os.environ | {_INSIDE: "1"})
    raise BenchmarkError("needs the command unshare, of util-linux")


class Layout(NamedTuple):
    """Which ranks there are, and which reply."""

    name: str
    remote: int
    """How many ranks node 1 has. Node 0 has as many: vLLM and mpspmd divide the ranks equally."""
    both: bool
    """Whether each rank's reply is awaited; otherwise the first remote rank's alone is."""


LAYOUTS = (
    Layout("remote", 1, both=False),
    Layout("both", 1, both=True),
    Layout("two-remote", 2, both=False),
)


def layout_named(name: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == name)


class NodePair:
    """This process is on one node; `start` starts a program on the other."""

    def __init__(self) -> None:
        self._cleanup = contextlib.ExitStack()
        with self._cleanup:
            _do("ip", "link", "set", "lo", "up")
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo ready && exec sleep infinity"],
                stdout=subprocess.PIPE,
            )
            self._cleanup.callback(holder.wait)
            self._cleanup.callback(holder.kill)
            assert holder.stdout is not None
            if not holder.stdout.readline():
                raise BenchmarkError("no network namespace can be made: run it as root")
            self._enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
            cable = ["type", "veth", "peer", "name", "node1", "netns", str(holder.pid)]
            _do("ip", "link", "add", "node0", *cable)
            _do("ip", "address", "add", f"{HERE}/24", "dev", "node0")
            _do("ip", "link", "set", "node0", "up")
            _do(*self._enter, "ip", "address", "add", f"{THERE}/24", "dev", "node1")
            _do(*self._enter, "ip", "link", "set", "node1", "up")
            _do(*self._enter, "ip", "link", "set", "lo", "up")
            self._cleanup = self._cleanup.pop_all()

    def start(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen([*self._enter, *command], **options)

    def bytes_on_wire(self) -> int:
        """What has gone over the cable so far, in both directions, with all headers."""
        shown = _do("ip", "-s", "-j", "link", "show", "node0")
        (link,) = json.loads(shown)
        return int(link["stats64"]["rx"]["bytes"] + link["stats64"]["tx"]["bytes"])

    def close(self) -> None:
        self._cleanup.close()


def _do(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise BenchmarkError(f"{' '.join(command)}: {reason}; run it as root") from error
