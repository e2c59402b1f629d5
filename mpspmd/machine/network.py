"""What this machine's network can do. Only the lookup of a host name may ask another machine."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse

import psutil

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

NO_LOOPBACK = (
    "the loopback interface is down, so no process can use TCP or gloo: `ip link set lo up`"
)


def loopback() -> str | None:
    """The numeric address by which processes of this machine can connect to each other, or None."""
    for family, address in _LOOPBACKS:
        with (
            contextlib.suppress(OSError),
            socket.socket(family) as listener,
            socket.socket(family) as client,
        ):
            listener.bind((address, 0))
            listener.listen(1)
            client.settimeout(1.0)
            client.connect(listener.getsockname())
            return address
    return None


def unreachable(host: str) -> str | None:
    """Why this machine can't send to a host; None if it has a route."""
    try:
        found = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return f"the host name {host!r} can't be resolved: {_reason(error)}"
    reasons = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as datagrams:
                datagrams.connect(address)  # sends nothing, but looks for a route
                return None
        except OSError as error:
            reasons.append(f"{address[0]}: {_reason(error)}")
    return f"this machine has no route to {host!r} ({'; '.join(reasons)})"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def numeric(url: str) -> str:
    """The same with an address instead of a host name, if it can be resolved.

    torch's C++ code would ask the name service for other kinds of addresses too, which takes ten
    seconds where it doesn't answer.
    """
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname:
        return url
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
        return f"{parts.scheme}://{host_and_port(address, parts.port)}"
    return url


def host_and_port(host: str, port: int | None) -> str:
    """HOST:PORT, as URLs and ZeroMQ have it: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interface_towards(url: str) -> str | None:
    """The network interface through which this machine reaches the host of `url`; None if that isn't known.

    Sends nothing: the kernel looks the way up.
    """
    parts = urllib.parse.urlsplit(url)
    with contextlib.suppress(OSError):
        family, kind, _, _, at = socket.getaddrinfo(
            parts.hostname, parts.port or 1, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(at)
            own = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address.partition("%")[0] == own for each in addresses):
                return name
    return None
