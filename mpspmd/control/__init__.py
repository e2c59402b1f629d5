"""The control plane: messages between the engine and its ranks over ZeroMQ, beside the rings."""
