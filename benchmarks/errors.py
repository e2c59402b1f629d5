"""BenchmarkError: why a run can't go on."""


class BenchmarkError(Exception):
    """Its message is one line for the user."""
