"""The machine: kernel, cores, NUMA nodes, clock, huge pages, GPUs, and the network."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mpspmd._ring import MAX_READERS
from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok, slow
from mpspmd.machine.cgroup import cpu_quota
from mpspmd.machine.cores import count_cores
from mpspmd.machine.network import NO_LOOPBACK, loopback

_SLOW_LOOKUP_S = 1.0
_SLOW_CLOCKS = ("hpet", "acpi_pm", "refined-jiffies", "jiffies", "xen")


def kernel(plan: Plan) -> Iterator[Finding]:
    yield ok("kernel", f"{platform.system()} {platform.release()}, {platform.machine()}")


def cores(plan: Plan) -> Iterator[Finding]:
    allowed, quota = len(os.sched_getaffinity(0)), cpu_quota()
    usable = count_cores(allowed, quota)
    found = f"{allowed} cores for {plan.ranks} rank(s) and the engine"
    more = ""
    if quota is not None and quota < allowed:
        found += f", of which a CPU quota gives the time of {quota:g}"
        more = "; or raise the quota (docker --cpus, limits.cpu in Kubernetes)"
    if plan.ranks > MAX_READERS:
        yield fails("cores", f"{plan.ranks} ranks", f"at most {MAX_READERS} are possible")
    elif plan.ranks > usable:
        advice = "more ranks than cores: they take turns; start fewer ranks"
        yield slow("cores", found, advice + more)
    elif plan.ranks + 1 > usable:
        advice = "one more than ranks lets the engine work beside them"
        yield note("cores", found, advice + more)
    else:
        yield ok("cores", found)


def numa(plan: Plan) -> Iterator[Finding]:
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    found = f"{nodes} NUMA node(s)"
    if nodes > 1 and plan.ranks % nodes:
        yield note("NUMA", found, f"{plan.ranks} rank(s) can't be spread over them evenly")
    else:
        yield ok("NUMA", found)


def clock(plan: Plan) -> Iterator[Finding]:
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    source = path.read_text().strip() if path.exists() else "unknown"
    if source in _SLOW_CLOCKS:
        advice = (
            "reading it is a system call: boot with clocksource=tsc if the processor's is stable"
        )
        yield slow("clock", source, advice)
    else:
        yield ok("clock", source)
    late_us = _late_us()
    found = f"a sleep of 100 µs takes {late_us:.0f} µs longer"
    with contextlib.suppress(OSError):
        if " hypervisor" in Path("/proc/cpuinfo").read_text():
            found += ", on a virtual machine"
    if late_us > 500:
        yield slow("timer", found, "waits that sleep wake late: MPSPMD_WAIT=yield")
    else:
        yield ok("timer", found)


def huge_pages(plan: Plan) -> Iterator[Finding]:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if path.exists():
        text = path.read_text()
        chosen = text[text.find("[") + 1 : text.find("]")]
        if chosen == "never":
            advice = "large models on CPUs load and run faster with madvise or always"
            yield note("transparent huge pages", chosen, advice)
        else:
            yield ok("transparent huge pages", chosen)


def gpus(plan: Plan) -> Iterator[Finding]:
    import torch

    count = torch.cuda.device_count()
    found = f"{count} GPU(s)" if count else f"none that torch {torch.__version__} can use"
    if 0 < count < plan.ranks:
        yield fails("GPUs", found, f"{plan.ranks} ranks need one each: start {count}, or hide them")
    elif count:
        yield ok("GPUs", found)
    else:
        yield note("GPUs", found, "ranks use the CPU")


def network(plan: Plan) -> Iterator[Finding]:
    """Whether there is a loopback interface, and whether this machine can resolve its own name."""
    yield _network(loopback(), socket.gethostname())


def _network(address: str | None, name: str) -> Finding:
    subject = "network"
    if address is None:
        advice = "an engine whose workers form no process group runs all the same"
        return fails(subject, NO_LOOPBACK, advice)
    began = time.monotonic()
    found = _addresses(name)
    took_s = time.monotonic() - began
    at = f"loopback at {address}; the host name {name}"
    resolved = f"{at} is {', '.join(found)}" if found else f"{at} can't be resolved"
    if took_s > _SLOW_LOOKUP_S:
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


def _late_us() -> float:
    """How much longer than asked a sleep takes, in µs; the median of a few."""
    late = []
    for _ in range(31):
        began = time.perf_counter()
        time.sleep(100e-6)
        late.append((time.perf_counter() - began) * 1e6 - 100)
    return sorted(late)[len(late) // 2]


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
