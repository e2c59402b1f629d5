"""Naming: how texts call a rank and the state of its process. Each process imports it: keep it small."""

from __future__ import annotations

HELD = {
    "stopped": "stopped (kill -STOP, Ctrl-Z)",
    "tracing-stop": "held by a debugger (gdb, strace)",
}
"""The states in which a process does nothing, whatever comes, as psutil calls them; in words."""


def on_node(node: int) -> str:
    """What follows a rank or a pid in a text: "" on the engine's node, whose processes have these pids."""
    return f" on node {node}" if node else ""


def rank_name(rank: int, pid: int, node: int) -> str:
    return f"rank {rank}{on_node(node)} (pid {pid})"
