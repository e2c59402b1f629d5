"""Nodes of a cluster, simulated on this machine, with a switch between them.

Each node has namespaces of its own: network, processes, /dev/shm, System V IPC and hostname. So nothing
that works on one machine only, such as shared memory or a process id, works between two of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from simulated_nodes.enter_node import CLONE_NEWNET, set_namespace, set_namespaces

HERE = Path(__file__).parent

# Process 1 of a namespace: it reaps orphans, as bash does while it waits, and ends when its stdin is
# closed. With process 1 the kernel kills all other processes of the namespace.
_SWITCH = """
ip link set lo up && ip link add br0 type bridge && ip link set br0 up && echo ready && read
"""
_NODE = """
mount -t tmpfs tmpfs /dev/shm && mount --bind "$1" /etc/hosts && hostname "$2" &&
ip link set lo up && echo ready && read
"""
# Address resolution gets more tries than usual, so that a link which loses packets never seems to be gone.
_LINK = """
for tries in mcast_solicit ucast_solicit; do echo 20 > /proc/sys/net/ipv4/neigh/eth0/$tries; done
ip link set eth0 up && ip address add "$1/24" dev eth0 && ip route add default dev eth0
"""


class _Namespace:
    """A process that holds namespaces. Closing it kills all processes in them."""

    def __init__(self, kinds: Sequence[str], script: str, *args: str) -> None:
        command = ["unshare", *kinds, "--pid", "--fork", "--kill-child", "--mount-proc"]
        # A bash of its own session doesn't get the terminal's Ctrl-C.
        self._process = subprocess.Popen(
            [*command, "bash", "-c", script, "bash", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            reason = self._process.communicate()[1].decode().strip()
            raise RuntimeError(reason or f"unshare exited with {self._process.returncode}")
        (self.pid,) = [child.pid for child in psutil.Process(self._process.pid).children()]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()

    def run(self, *command: str) -> None:
        """Runs a short command in it. RuntimeError with what it wrote, if it fails."""
        done = subprocess.run(
            enter(self.pid, command), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def enter(pid: int, command: Sequence[str]) -> list[str]:
    return [sys.executable, "-S", "-E", str(HERE / "enter_node.py"), str(pid), *command]


class SimulatedNode:
    """Made by SimulatedNodes. Process ids are those that this process sees."""

    def __init__(self, rank: int, hosts: Path, folder: Path) -> None:
        self.rank = rank
        self.name = f"node{rank}"
        self.address = f"10.77.0.{rank + 1}"
        self.folder = folder
        """The node's temp folder."""
        kinds = ("--net", "--mount", "--ipc", "--uts")
        self.namespace = _Namespace(kinds, _NODE, str(hosts), self.name)

    def start(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        stdout: IO[Any] | int | None = None,
        **popen: Any,
    ) -> subprocess.Popen[Any]:
        """Starts a command on the node, in a session of its own. `env` is added to this process's."""
        variables = {"TMPDIR": str(self.folder), "VLLM_HOST_IP": self.address, **(env or {})}
        return subprocess.Popen(
            enter(self.namespace.pid, [str(part) for part in command]),
            env={**os.environ, **variables},
            stdout=stdout,
            start_new_session=True,
            **popen,
        )

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Within, this thread makes its sockets on the node."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            set_namespaces(self.namespace.pid, CLONE_NEWNET)
            try:
                yield
            finally:
                set_namespace(own, CLONE_NEWNET)
        finally:
            os.close(own)

    def processes(self) -> list[psutil.Process]:
        """The living processes on the node."""
        mine = _pid_namespace(self.namespace.pid)
        found = []
        psutil.process_iter.cache_clear()  # of processes whose numbers others have by now
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                here = process.pid != self.namespace.pid and _pid_namespace(process.pid) == mine
                if here and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def files(self) -> list[str]:
        """The files in the node's shared memory and temp folder."""
        shared_memory = f"/proc/{self.namespace.pid}/root/dev/shm"
        return sorted(os.listdir(shared_memory) + os.listdir(self.folder))

    def leftovers(self, within_s: float = 20) -> list[str]:
        """Processes and files that are still on the node after `within_s`."""
        end = time.monotonic() + within_s
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        processes = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                processes.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        return processes + self.files()

    def kill_all(self) -> None:
        """SIGKILL to all processes on the node."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def remove_files(self) -> None:
        """What killed processes have left, if the janitor was killed with them."""
        while self.processes():
            time.sleep(0.01)
        for folder in (Path(f"/proc/{self.namespace.pid}/root/dev/shm"), self.folder):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def pid_on_node(pid: int) -> int:
    """The id that a process has on its own node."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


class SimulatedNodes(Sequence[SimulatedNode]):
    """`count` nodes, each with a link to one switch. Use it in a `with` block, which ends all of it.

    Node 0 has the address 10.77.0.1 and the name node0, and so on. With a `delay_s` or a `loss` each link
    delays each packet by that time, or loses it with that probability, in both directions.
    """

    def __init__(self, count: int, *, delay_s: float = 0.0, loss: float = 0.0) -> None:
        self._cleanup = contextlib.ExitStack()
        self.nodes: list[SimulatedNode] = []
        with self._cleanup:
            # Short, because sockets lie in it, and a socket's path has 107 bytes.
            folder = Path(tempfile.mkdtemp(prefix="n-"))
            self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            hosts = folder / "hosts"
            names = [f"10.77.0.{rank + 1} node{rank}" for rank in range(count)]
            hosts.write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
            self._switch = _Namespace(("--net", "--mount"), _SWITCH)
            self._cleanup.callback(self._switch.close)
            self._commands = self._start_commands()
            self._cleanup.callback(self._commands.communicate)
            for rank in range(count):
                (folder / str(rank)).mkdir()
                node = SimulatedNode(rank, hosts, folder / str(rank))
                self._cleanup.callback(node.namespace.close)
                self.nodes.append(node)
                if delay_s or loss:
                    self._cleanup.callback(self._slow_link(node, delay_s, loss))
                else:
                    pid = str(node.namespace.pid)
                    far_end = ("type", "veth", "peer", "name", "eth0", "netns", pid)
                    self._switch_does("link", "add", f"port{rank}", *far_end)
                self._switch_does("link", "set", f"port{rank}", "up", "master", "br0")
                node.namespace.run("sh", "-c", _LINK, "sh", node.address)
            self._cleanup = self._cleanup.pop_all()

    def _start_commands(self) -> subprocess.Popen[str]:
        """A process that carries out commands at the switch. On a busy machine a process that has yet to be
        started would come too late."""
        # It sees /proc as this process does: a node is named by the id that it has here.
        command = ["nsenter", f"--net=/proc/{self._switch.pid}/ns/net", "ip", "-batch", "-"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)

    def _switch_does(self, *ip: str) -> None:
        stdin, stdout = self._commands.stdin, self._commands.stdout
        assert stdin is not None
        assert stdout is not None
        # It answers the second command when it has carried out the first.
        stdin.write(f"{' '.join(ip)}\nlink show lo\n")
        if not (stdout.readline() and stdout.readline()):
            raise RuntimeError(f"ip {' '.join(ip)}: {self._commands.communicate()[1].strip()}")

    def _slow_link(self, node: SimulatedNode, delay_s: float, loss: float) -> Any:
        pids = (str(node.namespace.pid), str(self._switch.pid))
        figures = (str(delay_s), str(loss), str(node.rank))  # each link loses other packets
        link = subprocess.Popen(
            [sys.executable, HERE / "slow_link.py", *pids, f"port{node.rank}", *figures],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert link.stdout is not None
        if link.stdout.readline() != b"ready\n":
            link.communicate()
            raise RuntimeError("no TAP device can be made")
        return link.communicate

    def cut(self, rank: int) -> None:
        """From now on the node's packets get lost. Neither side is told."""
        self._switch_does("link", "set", f"port{rank}", "nomaster")

    def mend(self, rank: int) -> None:
        """Ends `cut`."""
        self._switch_does("link", "set", f"port{rank}", "master", "br0")

    def lose(self, rank: int) -> None:
        """The node is gone, as if its power had failed: nothing of it sends a last packet."""
        self.cut(rank)
        self[rank].kill_all()
        self[rank].remove_files()

    def __getitem__(self, rank: Any) -> Any:
        return self.nodes[rank]

    def __len__(self) -> int:
        return len(self.nodes)

    def __enter__(self) -> SimulatedNodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()


@contextlib.contextmanager
def ending(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    """When the block ends, these processes are killed and reaped."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _why_not() -> str:
    try:
        with SimulatedNodes(1):
            return ""
    except (OSError, RuntimeError) as error:
        return f"nodes can't be simulated with namespaces here: {error}"


_WHY_NOT = _why_not()
needs_nodes = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)
"""For tests that make SimulatedNodes."""
