"""What channels between an engine and its ranks cost.

One module a measurement, each run as `python -m benchmarks.<module>`:

    channel_latency    the round trip of one message, mpspmd beside other transports
    paced_latency      the same when messages come every few milliseconds, and the CPU time of waiting
    throughput         messages a second, and bytes a second of tensors
    scaling            what a broadcast costs as the number of ranks grows
    step_codec         the time to encode and decode a step's messages, and their sizes
    nodes              steps over two nodes, beside vLLM's queue and beside bare ZeroMQ
    step_overhead      a step of vLLM's executors, with workers that return at once
    recorder_cost      round trips and steps with the recorder on and paused
    watcher_cost       the CPU time of an engine that mpspmd-metrics watches, and of one that it doesn't
    vllm_e2e           tokens/s of vLLM with a tiny model, on mp and on mp-spmd
    start_stop         how long vLLM takes to start and to stop, on mp and on mp-spmd

`suite` runs them and writes docs/benchmarks.md and docs/benchmarks-vllm.md. On a machine with GPUs
`gpu_check` runs some of them after the tests in tests/gpu, and writes docs/benchmarks-gpu.md. `peers` has
the transports, one module each, and says how to add one.
"""
