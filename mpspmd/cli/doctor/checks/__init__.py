"""The checks of mpspmd-doctor. Each is a function that yields findings about this machine."""

from mpspmd.cli.doctor.checks.finding import Check, Finding, Level, Plan
from mpspmd.cli.doctor.checks.limits import descriptors, locked_memory, threads
from mpspmd.cli.doctor.checks.machine import clock, cores, gpus, huge_pages, kernel, numa
from mpspmd.cli.doctor.checks.network import network
from mpspmd.cli.doctor.checks.processes import deaths, pidfds, signals
from mpspmd.cli.doctor.checks.settings import settings
from mpspmd.cli.doctor.checks.storage import shared_memory, sockets
from mpspmd.cli.doctor.checks.vllm_plugin import vllm

__all__ = ["CHECKS", "Check", "Finding", "Level", "Plan"]

CHECKS: tuple[Check, ...] = (
    kernel, pidfds, deaths, signals, cores, numa, shared_memory, descriptors, threads, locked_memory,
    sockets, network, clock, huge_pages, gpus, vllm, settings,
)  # fmt: skip
