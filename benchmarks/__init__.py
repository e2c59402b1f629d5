"""What channels between an engine and its ranks cost.

One module a measurement, each run as `python -m benchmarks.<module>`:

    channel_latency    the round trip of one message, mpspmd beside other transports
    step_overhead      a step of vLLM's executors, with workers that return at once
    vllm_e2e           tokens/s of vLLM with a tiny model, on mp and on mp-spmd

`peers` has the transports, one module each; how to add one is said there.
"""
