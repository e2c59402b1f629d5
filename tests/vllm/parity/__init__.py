"""A matrix of vLLM's features, run on `mp` and on `mp-spmd`: what is the same, better or worse."""

DOZEN = [
    "lifecycle", "greedy", "seeded", "logprobs", "n", "stop", "prefix-cache", "structured", "aborts",
    "extension", "resets", "apply-model",
]  # fmt: skip
"""The rows that every `make test` runs: all on one engine."""
