"""The transports that are measured, by name. A peer is one module with one class, a peer.Peer.

To add one, write a module that imports the transport at its top, and name its class in CLASSES. It starts
its ranks with rank_processes.RankProcesses, unless the transport starts processes itself.
"""

from __future__ import annotations

import importlib

from benchmarks.peers.peer import Peer

CLASSES = {
    "c-pingpong": "benchmarks.peers.c_pingpong:CPingPong",
    "mpspmd-raw": "benchmarks.peers.mpspmd_raw:MpspmdRaw",
    "mpspmd": "benchmarks.peers.mpspmd_channel:MpspmdChannel",
    "mpspmd-spin": "benchmarks.peers.mpspmd_channel:MpspmdSpin",
    "mpspmd-yield": "benchmarks.peers.mpspmd_channel:MpspmdYield",
    "mpspmd-park": "benchmarks.peers.mpspmd_channel:MpspmdPark",
    "mpspmd-engine": "benchmarks.peers.mpspmd_engine:MpspmdEngine",
    "vllm-messagequeue": "benchmarks.peers.vllm_messagequeue:VllmMessageQueue",
    "iceoryx2": "benchmarks.peers.iceoryx:Iceoryx",
    "zmq-ipc": "benchmarks.peers.zmq_ipc:ZmqIpc",
    "mp-pipe": "benchmarks.peers.mp_pipe:MpPipe",
    "mp-queue": "benchmarks.peers.mp_queue:MpQueue",
    "gloo": "benchmarks.peers.gloo:Gloo",
    "ray-graph": "benchmarks.peers.ray_graph:RayGraph",
    "ray-actor": "benchmarks.peers.ray_actor:RayActor",
}

OBJECTS = tuple(name for name in CLASSES if name not in ("c-pingpong", "mpspmd-raw"))
"""Those that carry objects; the others carry bytes."""

# What a tool measures unless told otherwise.
_STRATEGIES = ("mpspmd-spin", "mpspmd-yield", "mpspmd-park")
LATENCY = tuple(name for name in CLASSES if name not in _STRATEGIES)
PACED = ("mpspmd", "mpspmd-park", "mpspmd-yield", "vllm-messagequeue", "zmq-ipc")


def load(name: str) -> type[Peer]:
    """The class of that name. Raises what its import raises: the transport may not be installed."""
    module, _, attribute = CLASSES[name].partition(":")
    peer: type[Peer] = getattr(importlib.import_module(module), attribute)
    return peer
