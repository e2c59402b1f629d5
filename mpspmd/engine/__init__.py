"""The engine: it sends requests to all ranks, collects replies, and decides what a failure means."""
