"""What this machine offers a run of N ranks, one finding a function."""

from mpspmd.cli.checks.finding import Check, Finding, Level, Plan
from mpspmd.cli.checks.limits import descriptors, locked_memory, threads
from mpspmd.cli.checks.machine import clock, cores, gpus, huge_pages, kernel, numa
from mpspmd.cli.checks.network import network
from mpspmd.cli.checks.processes import deaths, pidfds, signals
from mpspmd.cli.checks.settings import settings
from mpspmd.cli.checks.storage import shared_memory, sockets
from mpspmd.cli.checks.vllm_plugin import vllm

__all__ = ["CHECKS", "Check", "Finding", "Level", "Plan"]

CHECKS: tuple[Check, ...] = (
    kernel, pidfds, deaths, signals, cores, numa, shared_memory, descriptors, threads, locked_memory,
    sockets, network, clock, huge_pages, gpus, vllm, settings,
)  # fmt: skip
