"""OneNode: the rendezvous of a run on one machine, which needs no network and no name service."""

from __future__ import annotations

import enum
import socket

from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from mpspmd.machine.network import loopback
from mpspmd.threads import start_thread


class Backend(enum.StrEnum):
    """The rendezvous backends that the launcher treats specially; PyTorch knows others."""

    STATIC = "static"
    C10D = "c10d"
    ONE_NODE = "one-node"
    """Ours."""


class OneNode(RendezvousHandler):
    """A single node has nobody to meet, so the agent's own store is memory of this process.

    The ranks' `init_process_group()` needs a TCP store, and this serves one, as torchrun's agent does.
    Without a loopback interface there is none, and the ranks get neither MASTER_ADDR nor MASTER_PORT.
    """

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._run_id = parameters.run_id
        self._store = HashStore()
        address = parameters.local_addr or loopback()
        self._ranks_store = RendezvousStoreInfo("", 0) if address is None else _serve(address)

    def get_backend(self) -> str:
        return Backend.ONE_NODE

    @property
    def use_agent_store(self) -> bool:
        return bool(self._ranks_store.master_addr)

    def next_rendezvous(self) -> RendezvousInfo:
        return RendezvousInfo(self._store, 0, 1, self._ranks_store)

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


rendezvous_handler_registry.register(Backend.ONE_NODE, OneNode)


def _serve(address: str) -> RendezvousStoreInfo:
    """Serves a TCP store at an address of this machine until this process ends."""
    try:
        family, _, _, _, at = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(at[:2], family=family, backlog=1024)
    except OSError as error:
        raise RendezvousConnectionError(
            f"{address!r} is no address of this machine that ranks could connect to ({error.strerror}): "
            "leave out --local-addr"
        ) from error
    port = listener.getsockname()[1]
    # A thread, because the store also connects to itself and then looks up the name of its address, which
    # takes ten seconds where the name service doesn't answer.
    start_thread(_serve_forever, address, port, listener.detach(), name="mpspmd-store")
    return RendezvousStoreInfo(address, port)


def _serve_forever(address: str, port: int, listener: int) -> None:
    store = TCPStore(
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listener,
    )
    _served.append(store)


_served: list[TCPStore] = []
"""Keeps the stores open: one is closed when the last reference to it goes."""


def ask_no_name_service() -> None:
    """Makes `socket.getfqdn` return the short host name, for the rest of this process.

    PyTorch's agent calls it for each event, and each call takes ten seconds where the name service doesn't
    answer. On one node the short name is enough.
    """
    socket.getfqdn = lambda name="": name or socket.gethostname()
