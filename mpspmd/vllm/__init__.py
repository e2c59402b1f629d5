"""mpspmd as a backend of vLLM: `--distributed-executor-backend mp-spmd`."""
