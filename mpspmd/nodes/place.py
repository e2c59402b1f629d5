"""NodePlace: which of the run's nodes this is, and where the nodes meet."""

from mpspmd.bridge.place import NodePlace

__all__ = ["NodePlace"]
