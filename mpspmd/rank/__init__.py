"""A rank: the process that runs the worker."""
