"""Peers: the transports between two nodes: ours, and bare ZeroMQ sockets with CURVE."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import zmq

import mpspmd
from benchmarks.errors import BenchmarkError
from benchmarks.node_pair import HERE, Layout, NodePair, layout_named
from mpspmd.bridge.keys import keys_from
from mpspmd.nodes import NodePlace, follow

_SECRET = "benchmark" * 4
_PORT = 7400
_ZMQ_PORT = 7405
_VARIANTS = 8
_PATIENCE_S = 300.0


class Answers:
    """What a rank replies, at once: to bytes the same bytes, to a step outputs whose tokens differ."""

    def __init__(self) -> None:
        self._outputs: list[Any] = []
        self._steps = 0
        # As vLLM's own workers do; otherwise each collection walks through all modules.
        gc.collect()
        gc.freeze()

    def to(self, request: Any) -> Any:
        if isinstance(request, bytes):
            return request
        ids = list(request.num_scheduled_tokens)
        if not self._outputs or len(self._outputs[0].req_ids) != len(ids):
            self._outputs = [_output(ids, variant) for variant in range(_VARIANTS)]
        self._steps += 1
        return self._outputs[self._steps % _VARIANTS]


def _output(ids: list[str], variant: int) -> Any:
    from vllm.v1.outputs import ModelRunnerOutput  # not for the cases that only send bytes

    return ModelRunnerOutput(
        req_ids=ids,
        req_id_to_index={each: number for number, each in enumerate(ids)},
        sampled_token_ids=[[(number * 7919 + variant * 31) % 32000] for number in range(len(ids))],
    )


class NodePeer:
    """Node 0's end; the module's main function is node 1's."""

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, pair: NodePair, folder: Path, layout: Layout, *, steps: bool) -> None:
        """Starts node 1's process or processes. With `steps` the requests are vLLM's."""
        self._folder = folder
        self._layout = layout
        os.environ["MPSPMD_SECRET"] = _SECRET
        command = [sys.executable, "-m", type(self).__module__, self.name]
        self._node = [
            pair.start(*command, layout.name, str(number), str(folder))
            for number in range(self._processes(layout))
        ]

    @staticmethod
    def _processes(layout: Layout) -> int:
        return 1

    def step(self, request: Any) -> Any:
        """Sends a request to all ranks, and returns when the awaited replies are decoded."""
        raise NotImplementedError

    def close(self) -> None:
        for process in self._node:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def told(folder: Path, name: str) -> Any:
    """What another process has written into a file. Both nodes share the file system."""
    path, until = folder / name, time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            raise BenchmarkError(f"a process has not written {path} within {_PATIENCE_S:g} s")
        time.sleep(0.01)
    return pickle.loads(path.read_bytes())


def tell(folder: Path, name: str, value: Any) -> None:
    (folder / f"{name}.new").write_bytes(pickle.dumps(value))
    (folder / f"{name}.new").rename(folder / name)


class Returning(mpspmd.Worker):
    """Returns at once."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        self._answers = Answers()

    def execute_model(self, request: Any) -> Any:
        return self._answers.to(request)


def _place(node: int, layout: Layout) -> NodePlace:
    return NodePlace(node, 2, layout.remote, HERE, _PORT)


class Mpspmd(NodePeer):
    name = "mpspmd"
    version = mpspmd.__version__

    def __init__(self, pair: NodePair, folder: Path, layout: Layout, *, steps: bool) -> None:
        super().__init__(pair, folder, layout, steps=steps)
        place, codec = _place(0, layout), None
        if steps:
            from mpspmd.vllm.step_codec import step_codec

            codec = step_codec()
        self._awaited: Any = "all" if layout.both else layout.remote
        self._engine = mpspmd.Engine(
            Returning, world_size=place.world_size, nodes=place, step_codec=codec
        )

    def step(self, request: Any) -> Any:
        return self._engine.call("execute_model", (request,), reply_ranks=self._awaited)

    def close(self) -> None:
        self._engine.shutdown()
        super().close()


class BareZmq(NodePeer):
    """The least that ZeroMQ with CURVE needs for bytes, which nobody encodes or decodes."""

    name = "zmq-curve"
    version = zmq.__version__

    def __init__(self, pair: NodePair, folder: Path, layout: Layout, *, steps: bool) -> None:
        super().__init__(pair, folder, layout, steps=steps)
        keys = keys_from({"MPSPMD_SECRET": _SECRET})
        assert keys is not None
        self._socket = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.linger = 1000
        self._socket.sndtimeo = self._socket.rcvtimeo = int(_PATIENCE_S * 1000)
        self._socket.curve_server = True
        self._socket.curve_secretkey = keys.head.secret
        self._socket.bind(f"tcp://{HERE}:{_ZMQ_PORT}")
        self._socket.recv()

    def step(self, request: Any) -> Any:
        assert isinstance(request, bytes)
        self._socket.send(request)
        return self._socket.recv()

    def close(self) -> None:
        if self._node[0].poll() is None:
            self._socket.send(b"end")
        super().close()
        self._socket.close()


def _serve_zmq() -> None:
    keys = keys_from({"MPSPMD_SECRET": _SECRET})
    assert keys is not None
    with zmq.Context() as context, context.socket(zmq.PAIR) as peer:
        peer.curve_serverkey = keys.head.public
        peer.curve_publickey, peer.curve_secretkey = keys.node.public, keys.node.secret
        peer.connect(f"tcp://{HERE}:{_ZMQ_PORT}")
        peer.send(b"ready")
        while (request := peer.recv()) != b"end":
            peer.send(request)


def main() -> None:
    name, layout = sys.argv[1], layout_named(sys.argv[2])
    if name == Mpspmd.name:
        place = _place(1, layout)
        sys.exit(follow(world_size=place.world_size, nodes=place))
    _serve_zmq()


if __name__ == "__main__":
    main()
