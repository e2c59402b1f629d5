"""Shared-memory segments, and the channels between the engine and its ranks."""
