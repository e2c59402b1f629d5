"""Runs: what the suite measures. Each is one call of a tool, and one section of a document."""

from __future__ import annotations

from typing import NamedTuple

_STRATEGIES = "mpspmd,mpspmd-park,mpspmd-yield,vllm-messagequeue"


class Run(NamedTuple):
    """One call of a tool, and its section in a document."""

    tool: str
    options: str
    title: str
    meaning: str

    @property
    def command(self) -> str:
        return f"python -m benchmarks.{self.tool} {self.options}".rstrip()


RUNS = {
    "round-trips": Run(
        "channel_latency",
        "--ranks 1,2,4,8 --messages 20000 --round-s 0.15",
        "Round trips by number of ranks",
        "One message of 64 bytes at a time, in a closed loop; every rank replies. The mean is what a "
        "loop pays; the p99 is what disturbs it. `c-pingpong` is two processes in C, each on a core of "
        "its own, that do nothing else: what the machine allows. `mpspmd-raw` is a loop around the "
        "ring's own two calls, with bytes. `mpspmd` is the channels with the object codec, which packs "
        "such plain values where others pickle them; `mpspmd-engine` a method call through `Engine`.",
    ),
    "sizes": Run(
        "channel_latency",
        "--ranks 1 --size 64,4K,64K,1M --messages 20000 --round-s 0.15 "
        "--transports c-pingpong,mpspmd-raw,mpspmd,mpspmd-engine,vllm-messagequeue,zmq-ipc,mp-pipe",
        "Round trips by size",
        "The same with one rank and larger requests; the reply stays small. `c-pingpong` copies the "
        "payload in and out, and nothing else.",
    ),
    "paced": Run(
        "paced_latency",
        f"--interval-ms 1,5,20 --jitter 0.05 --ranks 1,2 --messages 40 --transports {_STRATEGIES}",
        "A message every few milliseconds",
        "Decoding at a steady pace: the engine is busy elsewhere from step to step, and the ranks "
        "wait. A transport that never sleeps takes all of a core for each rank; one that always sleeps "
        "is late. `mpspmd` is `auto`, which predicts; the strategies that don't are beside it.",
    ),
    "working": Run(
        "paced_latency",
        f"--gap ranks --interval-ms 5 --ranks 2 --messages 40 --transports {_STRATEGIES}",
        "Ranks that compute, and an engine that waits",
        "The other side of a step: each rank sleeps for the interval, then replies. Times are from the "
        "end of that until the reply is in the engine.",
    ),
    "patterns": Run(
        "paced_latency",
        "--interval-ms 2 --ranks 2 --messages 80 "
        "--patterns steady,shift,bursts,random,alternating "
        "--transports mpspmd,mpspmd-park,mpspmd-yield",
        "Intervals that are hard to predict",
        "`shift`: ten times as long from the middle on. `bursts`: 20 messages in a row after a silence "
        "of 40 intervals. `random`: exponentially distributed. `alternating`: 0.1 and 1.9 intervals.",
    ),
    "idle": Run(
        "paced_latency",
        "--idle-s 10 --ranks 2 --rounds 1 --transports mpspmd,mpspmd-engine,vllm-messagequeue",
        "Silence",
        "Ten seconds without a message: what waiting costs when nothing happens, in the engine and in "
        "the busiest rank.",
    ),
    "throughput": Run(
        "throughput",
        "--ranks 1,4 --size 64,1M --round-s 0.15 "
        "--transports mpspmd,vllm-messagequeue,zmq-ipc,mp-pipe",
        "Throughput",
        "Small messages 64 in a row, with a reply to the last one; tensors one at a time, with a reply "
        "to each. GB/s are what each rank gets, decoded into memory of its own.",
    ),
    "tensors": Run(
        "throughput",
        "--ranks 4 --size 64M --round-s 1 --transports mpspmd,mpspmd-engine,vllm-messagequeue",
        "Throughput of large tensors",
        "The same with what no cache holds. New pages of memory, which the kernel has to clear, are a "
        "good part of the time.",
    ),
    "scaling": Run(
        "scaling",
        "--messages 40",
        "Scaling",
        "One broadcast of 64 bytes to ranks that all sleep, on whatever cores there are. `writer` is "
        "what sending takes: with everybody awake no system call is made; with all asleep it is one "
        "FUTEX_WAKE, in which the kernel makes every sleeper runnable, and woken ranks may take the "
        "writer's core before it is through: its CPU time is what it did itself. `last reader` is from "
        "before the send until the last rank has the message: with more ranks than cores they take turns.",
    ),
    "step-codec": Run(
        "step_codec",
        "--batch 1,64,256,1024,4096",
        "A step's messages",
        "What an engine sends for a step, and what a rank replies: encoded and decoded, in one process. "
        "`pickle5` is what `mp` does, `flat-tuple` what vLLM's PR 54406 proposes. `steady`: one token a "
        "request, one request in 16 gets a block. `churn`: one request in 20 ends and another one comes. "
        "`prefill`: new requests only. A reply's tokens are kept for some steps, as a scheduler keeps "
        "them.",
    ),
    "step-overhead": Run(
        "step_overhead",
        "--tp 2 --batch 1,64,256,1024",
        "A step without a model",
        "What an executor adds to a step: the real executors, driven as by vLLM's EngineCore, with workers "
        "that return at once, in steady decode. Bytes are those of a step's messages to one rank and from "
        "it.",
    ),
    "nodes": Run(
        "nodes",
        "--batch 1,256,1024",
        "A step over two nodes",
        "Two network namespaces of one machine, which share its cores; workers return at once. "
        "`vllm-messagequeue` is what `mp` uses over nodes, and `zmq-curve` a bare pair of ZeroMQ sockets "
        "with encryption and no ranks on node 0, which carries as many bytes as ours. One peer is measured "
        "after the other. `remote`: one rank on each node, and the remote one's reply is awaited. `both`: "
        "the same with both replies awaited. `two-remote`: two ranks on each node, and the first remote "
        "one's reply is awaited. Bytes of a step are those on the cable in both directions, with all "
        "headers.",
    ),
    "vllm": Run(
        "vllm_e2e",
        "--tp 1,2 --concurrency 1,8,64,256 --rounds 3",
        "vLLM from end to end",
        "Tokens a second with a tiny model, whose forward pass takes most of the time: `mp` and `mp-spmd` "
        "in turn, and in each round started anew. `vs mp` is the median of the rounds' own ratios; CPU "
        "seconds are those of all processes for one generation.",
    ),
    "start-stop": Run(
        "start_stop",
        "--tp 2",
        "Starting and stopping vLLM",
        "With a tiny model, both backends in turn. A start is the call of `LLM(...)`; a stop ends when all "
        "processes of the engine are gone. CPU seconds are those of all processes for a start: while the "
        "machine is busy with other things, they say more than the time.",
    ),
}

GPU_RUNS = {
    "round-trips": RUNS["round-trips"]._replace(
        options="--ranks 1,2,4,8 --messages 20000 --round-s 0.1 --rounds 3"
    ),
    "paced": RUNS["paced"]._replace(
        options=f"--interval-ms 1,5 --ranks 1,8 --messages 40 --rounds 3 --transports {_STRATEGIES}"
    ),
    "vllm": RUNS["vllm"]._replace(
        options="--tp 2 --concurrency 1,8,64,256 --tokens 64 --round-s 1 --rounds 1"
    ),
    "step-overhead": RUNS["step-overhead"]._replace(
        options="--tp 2 --batch 1,64,256 --steps 300 --rounds 3"
    ),
}
"""Of `make gpu-check`: some of the same, in less time. With one GPU it makes `--tp 2` one rank."""

VLLM = ["step-codec", "step-overhead", "nodes", "vllm", "start-stop"]
CHANNELS = [name for name in RUNS if name not in VLLM]
DOCUMENTS = {"benchmarks.md": CHANNELS, "benchmarks-vllm.md": VLLM}
"""The runs that each document has, if their results are there."""
