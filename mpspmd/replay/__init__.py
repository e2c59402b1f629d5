"""Replay: recorded requests for ranks, without the engine that made them."""
