"""NodePlace: which of the run's nodes this is, and where the nodes meet."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mpspmd._ring import MAX_READERS
from mpspmd.errors import ConfigError
from mpspmd.machine.network import host_and_port


@dataclass(frozen=True)
class NodePlace:
    """One node's part in a run over several machines. All nodes have equally many ranks.

    Raises:
        ConfigError: A field has a value that can't be used; the message names it.
    """

    node_rank: int
    """This node's number, from 0 on. Node 0 is the head: it has the engine."""
    num_nodes: int
    """How many machines the run has."""
    local_world_size: int
    """How many ranks each node has. Node `n` has the ranks from `n * local_world_size` on."""
    head: str
    """The head's host name or address, as every node reaches it. The head listens on this address only."""
    port: int
    """The TCP port at which the head listens; the ranks' process group uses the next one."""

    def __post_init__(self) -> None:
        for name in ("node_rank", "num_nodes", "local_world_size", "port"):
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool):
                raise ConfigError(f"{name}={value!r}: must be a whole number")
        if self.num_nodes < 1 or self.local_world_size < 1 or self.world_size > MAX_READERS:
            raise ConfigError(
                f"num_nodes={self.num_nodes} with local_world_size={self.local_world_size}: must be 1 or "
                f"more each, and at most {MAX_READERS} ranks together"
            )
        if not 0 <= self.node_rank < self.num_nodes:
            raise ConfigError(
                f"node_rank={self.node_rank}: must be from 0 to {self.num_nodes - 1}, "
                f"because there are {self.num_nodes} nodes"
            )
        if not 1 <= self.port <= 65534:
            raise ConfigError(
                f"port={self.port}: must be from 1 to 65534; the next one is used too"
            )
        if not _is_host(self.head):
            raise ConfigError(
                f"head={self.head!r}: must be the host name or the address of node 0, without a port, "
                "brackets or tcp://"
            )

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.local_world_size

    @property
    def ranks(self) -> range:
        """This node's ranks."""
        return self.ranks_of(self.node_rank)

    def ranks_of(self, node: int) -> range:
        return range(node * self.local_world_size, (node + 1) * self.local_world_size)

    def node_of(self, rank: int) -> int:
        return rank // self.local_world_size

    @property
    def address(self) -> str:
        """HOST:PORT, for messages and for ZeroMQ."""
        return host_and_port(self.head, self.port)

    @property
    def meeting_place(self) -> str:
        """Where the ranks of all nodes meet for a process group, as torch's `init_method`."""
        return f"tcp://{host_and_port(self.head, self.port + 1)}"

    def check(self, world_size: int, *, is_head: bool) -> None:
        """ConfigError unless a run of so many ranks has this place."""
        if world_size != self.world_size:
            raise ConfigError(
                f"world_size={world_size}: must be num_nodes * local_world_size, which is "
                f"{self.num_nodes} * {self.local_world_size}"
            )
        if is_head and self.node_rank != 0:
            raise ConfigError(
                f"node_rank={self.node_rank}: only node 0 has an engine; call mpspmd.nodes.follow here"
            )
        if not is_head and self.node_rank == 0:
            raise ConfigError("node_rank=0: node 0 makes the engine, and follows nobody")


def _is_host(head: object) -> bool:
    """Whether it may be a host name or an address; whether there is such a host is another question."""
    if not isinstance(head, str):
        return False
    if ":" not in head:
        return re.fullmatch(r"[\w.-]+", head, re.ASCII) is not None
    try:
        ipaddress.IPv6Address(head)
    except ValueError:
        return False
    return True
