"""The network: the loopback interface, and whether this machine can resolve its own name."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok, slow
from mpspmd.machine.network import NO_LOOPBACK, loopback

_SLOW_S = 1.0


def network(plan: Plan) -> Iterator[Finding]:
    yield _finding(loopback(), socket.gethostname())


def _finding(address: str | None, name: str) -> Finding:
    subject = "network"
    if address is None:
        advice = "an engine whose workers form no process group runs all the same"
        return fails(subject, NO_LOOPBACK, advice)
    began = time.monotonic()
    found = _addresses(name)
    took_s = time.monotonic() - began
    at = f"loopback at {address}; the host name {name}"
    resolved = f"{at} is {', '.join(found)}" if found else f"{at} can't be resolved"
    if took_s > _SLOW_S:
        advice = f"PyTorch asks for it several times: add `{address} {name}` to /etc/hosts"
        return slow(subject, f"{resolved}, after {took_s:.0f} s", advice)
    if not any(_is_here(each) for each in found):
        advice = (
            f"add `{address} {name}` to /etc/hosts, or set GLOO_SOCKET_IFNAME; between nodes, give "
            "mpspmd-launch --local-addr"
        )
        why = ", which isn't an address of this machine" if found else ""
        return note(subject, resolved + why, advice)
    return ok(subject, resolved)


def _addresses(name: str) -> list[str]:
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return []


def _is_here(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family) as listener:
        listener.bind((address, 0))
        return True
    return False
