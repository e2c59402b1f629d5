"""Cluster: a run over simulated nodes, which a test drives through its head."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from simulated_nodes import SimulatedNodes, pid_on_node

MEMBER = Path(__file__).with_name("member.py")
SECRET = "0123456789abcdef" * 4
_ports = itertools.count(7100, 10)


SOON = {"MPSPMD_NODE_TIMEOUT_S": "3"}
"""For a run whose nodes are to be lost by their silence."""


class Cluster:
    """Starts member.py on each node. `how` is for the workers' constructors."""

    def __init__(
        self,
        nodes: SimulatedNodes,
        *,
        local: int = 1,
        how: str = "",
        start: bool = True,
        **environment: str,
    ) -> None:
        self.nodes = nodes
        self.local = local
        self.port = next(_ports)
        self._environment = {
            "MPSPMD_SECRET": SECRET,
            "MPSPMD_DIGEST_REQUESTS": "1",
            "MEMBER_HOW": how,
            # A busy machine may keep a process from running for seconds.
            "MPSPMD_NODE_TIMEOUT_S": "20",
            # torch asks the name service for the names of addresses, and none answers here.
            "RES_OPTIONS": "timeout:1 attempts:1",
            **environment,
        }
        self.members: list[subprocess.Popen[str]] = []
        if start:
            for rank in range(len(nodes)):
                self.start(rank)

    def start(self, rank: int, on: int | None = None, **environment: str) -> subprocess.Popen[str]:
        """Starts the member with this rank, on its own node or another one."""
        return self.start_as(
            [rank, len(self.nodes), self.local], rank if on is None else on, **environment
        )

    def start_as(self, shape: list[int], on: int, **environment: str) -> subprocess.Popen[str]:
        member = self.nodes[on].start(
            sys.executable, MEMBER, *map(str, shape), "node0", str(self.port),
            env=self._environment | environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.members.append(member)
        return member

    @property
    def head(self) -> subprocess.Popen[str]:
        return self.members[0]

    def line(self, member: int = 0) -> Any:
        """The next line of what a member prints, as it was before it became JSON."""
        stdout = self.members[member].stdout
        assert stdout is not None
        text = stdout.readline()
        assert text, f"member {member} has ended: {self.members[member].stderr.read()}"  # type: ignore[union-attr]
        return json.loads(text)

    def ready(self) -> Cluster:
        assert "value" in self.line()
        return self

    def ask(self, method: str, *args: Any, **options: Any) -> None:
        assert self.head.stdin is not None
        self.head.stdin.write(json.dumps([method, args, options]) + "\n")
        self.head.stdin.flush()

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """The value of a call on all ranks, or what the error says."""
        self.ask(method, *args, **options)
        told = self.line()
        return told.get("value", told)

    def end(self, timeout_s: float = 60) -> list[int]:
        """Lets the head shut down. All exit codes, in the members' order."""
        if self.head.stdin is not None and not self.head.stdin.closed:
            self.head.stdin.close()
        return [member.wait(timeout_s) for member in self.members]

    def process(self, node: int, pid: int) -> psutil.Process:
        """A process by the id that it has on its node."""
        for process in self.nodes[node].processes():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if pid_on_node(process.pid) == pid:
                    return process
        raise AssertionError(f"no process {pid} on node {node}")

    def command(self, node: int) -> psutil.Process:
        """The process of member.py itself on a node."""
        (found,) = [p for p in self.nodes[node].processes() if str(MEMBER) in p.cmdline()]
        return found

    def bridge(self) -> psutil.Process:
        """The head's bridge."""
        ranks = self.call("pids")[1:]
        children = self.command(0).children()
        (found,) = [
            child
            for child in children
            if pid_on_node(child.pid) not in ranks and "spawn_main" in " ".join(child.cmdline())
        ]
        return found

    def errors(self, member: int) -> str:
        """What a member that has ended has written to stderr."""
        stderr = self.members[member].stderr
        assert stderr is not None
        return stderr.read()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        for member in self.members:
            if member.poll() is None:
                os.killpg(member.pid, signal.SIGKILL)
        for node in self.nodes:
            node.kill_all()
            node.remove_files()
        for member in self.members:
            member.wait()
            for stream in (member.stdin, member.stdout, member.stderr):
                if stream is not None and not stream.closed:
                    stream.close()
