"""The control plane: hello, faults, health, shutdown, over ZeroMQ."""
