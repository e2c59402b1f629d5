"""The transports that are measured, by name. A peer is one module with one class: see peer.Peer.

To add one: write the module, importing what it measures at the top, and name its class in CLASSES.
Processes that it starts as plain ranks come from rank_processes.RankProcesses, whose docstring says
what their main function is given.
"""

from __future__ import annotations

import importlib

from benchmarks.peers.peer import Peer

CLASSES = {
    "mpspmd": "benchmarks.peers.mpspmd_channel:MpspmdChannel",
    "mpspmd-engine": "benchmarks.peers.mpspmd_engine:MpspmdEngine",
    "vllm-messagequeue": "benchmarks.peers.vllm_messagequeue:VllmMessageQueue",
    "zmq-ipc": "benchmarks.peers.zmq_ipc:ZmqIpc",
    "mp-pipe": "benchmarks.peers.mp_pipe:MpPipe",
}


def load(name: str) -> type[Peer]:
    """The class of that name. Whatever its import raises: what it measures may not be installed."""
    module, _, attribute = CLASSES[name].partition(":")
    peer: type[Peer] = getattr(importlib.import_module(module), attribute)
    return peer
