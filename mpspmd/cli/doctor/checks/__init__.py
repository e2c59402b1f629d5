"""The checks of mpspmd-doctor. Each is a function that yields findings about this machine."""

from mpspmd.cli.doctor.checks.finding import Check, Finding, Level, Plan
from mpspmd.cli.doctor.checks.machine import clock, cores, gpus, huge_pages, kernel, network, numa
from mpspmd.cli.doctor.checks.processes import deaths, pidfds, signals
from mpspmd.cli.doctor.checks.resources import (
    descriptors,
    locked_memory,
    shared_memory,
    sockets,
    threads,
)
from mpspmd.cli.doctor.checks.software import settings, vllm

__all__ = ["CHECKS", "Check", "Finding", "Level", "Plan"]

CHECKS: tuple[Check, ...] = (
    kernel, pidfds, deaths, signals, cores, numa, shared_memory, descriptors, threads, locked_memory,
    sockets, network, clock, huge_pages, gpus, vllm, settings,
)  # fmt: skip
