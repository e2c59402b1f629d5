"""A matrix of vLLM's features, run on `mp` and on `mp-spmd`: what is the same, better or worse."""

DOZEN = [
    "greedy", "seeded", "logprobs", "n", "stop", "prefix-cache", "structured", "aborts",
    "extension", "resets", "apply-model", "save-sharded",
]  # fmt: skip
"""The rows that every `make test` runs: all on one engine."""
