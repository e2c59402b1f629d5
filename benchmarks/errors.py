"""BenchmarkError: a run that can't go on."""


class BenchmarkError(Exception):
    """Its message is one line for whoever started the benchmark."""
