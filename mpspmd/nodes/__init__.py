"""Runs over several machines: what a node does that has no engine."""

from mpspmd.bridge.place import NodePlace
from mpspmd.nodes.follow import follow

__all__ = ["NodePlace", "follow"]
