"""OneNode: the rendezvous of a run on one machine, which needs no network and no name service."""

from __future__ import annotations

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

BACKEND = "one-node"
"""Its name among PyTorch's rendezvous backends."""


class OneNode(RendezvousHandler):
    """One node, rank 0 of 1, meets nobody, so the agent's own store is memory of this process.

    The ranks' `init_process_group()` needs a TCP store. This serves one, as torchrun's agent does. Without
    a loopback interface there is none, and the ranks get neither MASTER_ADDR nor MASTER_PORT.
    """

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._run_id = parameters.run_id
        self._store = HashStore()
        address = parameters.local_addr or loopback()
        self._ranks_store = RendezvousStoreInfo("", 0) if address is None else _serve(address)

    def get_backend(self) -> str:
        return BACKEND

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


def _serve(address: str) -> RendezvousStoreInfo:
    """Serves a store at an address of this machine until this process ends."""
    try:
        family, _, _, _, at = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(at[:2], family=family, backlog=1024)
    except OSError as error:
        raise RendezvousConnectionError(
            f"{address!r} is no address of this machine that ranks could connect to ({error.strerror}): "
            "leave out --local-addr"
        ) from error
    port = listener.getsockname()[1]
    # In a thread, because a store connects to itself as well, and then asks for the name of the address:
    # where the name service doesn't answer, that takes ten seconds.
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
"""A store that nobody refers to is closed."""

rendezvous_handler_registry.register(BACKEND, OneNode)


def ask_no_name_service() -> None:
    """For the rest of this process. PyTorch's agent looks up this machine's full name for each of its
    events, and each time that takes ten seconds where the name service doesn't answer. On one node nobody
    needs more than the short name.
    """
    socket.getfqdn = lambda name="": name or socket.gethostname()
