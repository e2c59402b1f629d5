"""python member.py RANK NODES LOCAL_RANKS HEAD PORT: one node of a run, for tests.

The head reads calls from stdin as lines of JSON, `[method, args, options]`, and prints the outcome of
each as
`{"value": …}` or `{"error": type, "text": str, …}`. When stdin ends it shuts down. Other nodes follow.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mpspmd
from mpspmd.nodes import NodePlace, follow

sys.path.insert(0, str(Path(__file__).parents[1]))


class Worker(mpspmd.Worker):
    def __init__(self, ctx: Any, how: str) -> None:
        super().__init__(ctx)
        self.calls: list[int] = []
        if how == f"raises on {ctx.rank}":
            raise ValueError("no such model")
        if how == f"exits on {ctx.rank}":
            os._exit(7)
        if how == f"hangs on {ctx.rank}":
            time.sleep(60)

    def place(self) -> list[int]:
        ctx = self.ctx
        return [ctx.rank, ctx.world_size, ctx.node_rank, ctx.local_rank, ctx.num_nodes]

    def execute_model(self, number: int) -> list[int]:
        return [self.ctx.rank, number]

    def append(self, number: int) -> None:
        self.calls.append(number)

    def appended(self) -> list[int]:
        """What has been appended since it was asked last."""
        calls, self.calls = self.calls, []
        return calls

    def digest(self) -> str | None:
        return self.ctx.request_digest()

    def size(self, data: bytes) -> int:
        return len(data)

    def make(self, size: int) -> int:
        return size

    def hash(self, text: str) -> int:
        return hash(text)

    def pid(self) -> int:
        return os.getpid()

    def fail_on(self, rank: int, others_wait_for: str = "") -> int:
        if self.ctx.rank == rank:
            raise KeyError("on purpose")
        wait_for(others_wait_for)
        return self.ctx.rank

    def wait_on(self, rank: int, path: str) -> None:
        if self.ctx.rank == rank:
            wait_for(path)

    def leave_on(self, rank: int) -> None:
        if self.ctx.rank == rank:
            raise SystemExit(9)

    def kill_on(self, rank: int, number: int) -> None:
        if self.ctx.rank == rank:
            if number == signal.SIGSEGV:
                faulthandler.disable()
            os.kill(os.getpid(), number)
        time.sleep(20)

    def sleep_on(self, rank: int, seconds: float) -> None:
        if self.ctx.rank == rank:
            time.sleep(seconds)

    def join_group(self) -> float:
        import torch

        self.ctx.init_process_group()
        value = torch.tensor([float(self.ctx.rank + 1)])
        torch.distributed.all_reduce(value)
        return float(value[0])


def wait_for(path: str) -> None:
    """Until there is such a file; "" is none."""
    while path and not os.path.exists(path):
        time.sleep(0.01)


def outcome(engine: mpspmd.Engine, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    began = time.monotonic()
    try:
        if method == "stream":
            return {"value": stream(engine, *args)}
        if method == "large":
            return {"value": engine.collective_rpc("size", (bytes(args[0]),), timeout=60)}
        if method == "large replies":
            reply = engine.collective_rpc(lambda worker, n: bytes(n), (args[0],), timeout=60)
            return {"value": [len(each) for each in reply]}
        if method == "stats":
            return {"value": [[each.node, each.pid, each.method] for each in engine.stats().ranks]}
        if method == "pids":
            return {"value": [os.getpid(), *engine.pids]}
        return {"value": engine.call(method, tuple(args), **options)}
    except mpspmd.MpSpmdError as error:
        return told(error) | {"seconds": time.monotonic() - began}


def stream(engine: mpspmd.Engine, seconds: float) -> list[int]:
    """Calls with several under way for so long. How many, and how many of their replies were wrong."""
    end, sent, wrong, futures = time.monotonic() + seconds, 0, 0, []
    while time.monotonic() < end:
        futures.append((sent, engine.call("execute_model", (sent,), non_block=True)))
        engine.call("append", (sent,), reply_ranks=None)
        sent += 1
        if len(futures) >= 16:
            number, future = futures.pop(0)
            wrong += future.result(60) != [[rank, number] for rank in range(engine.world_size)]
    for number, future in futures:
        wrong += future.result(60) != [[rank, number] for rank in range(engine.world_size)]
    appended = engine.collective_rpc("appended", timeout=60)
    wrong += sum(each != list(range(sent)) for each in appended)
    digests = engine.collective_rpc("digest", timeout=60)
    return [sent, wrong, len(set(digests))]


def told(error: BaseException) -> dict[str, Any]:
    names = ("rank", "node", "pid", "reason", "ranks", "causes")
    known = {name: getattr(error, name) for name in names if hasattr(error, name)}
    return {"error": type(error).__name__, "text": str(error)} | known


def main() -> None:
    rank, count, local = map(int, sys.argv[1:4])
    place = NodePlace(rank, count, local, sys.argv[4], int(sys.argv[5]))
    how = os.environ.get("MEMBER_HOW", "")
    if rank > 0:
        try:
            code = follow(world_size=place.world_size, nodes=place)
            # Only ranks import what the head's codec needs: that of vLLM takes many seconds.
            sys.exit(code or (4 if "batches" in sys.modules else 0))
        except mpspmd.MpSpmdError as error:
            print(json.dumps(told(error)), flush=True)
            sys.exit(3)
    try:
        from batches import CODEC

        engine = mpspmd.Engine(
            Worker, world_size=place.world_size, args=(how,), nodes=place, step_codec=CODEC
        )
    except mpspmd.MpSpmdError as error:
        print(json.dumps(told(error)), flush=True)
        sys.exit(3)
    with engine:
        print(json.dumps({"value": engine.pids}), flush=True)
        for line in sys.stdin:
            method, args, options = json.loads(line)
            if method == "end by":
                raise {"ValueError": ValueError, "SystemExit": SystemExit}[args[0]](*args[1:])
            print(json.dumps(outcome(engine, method, args, options)), flush=True)
    sys.exit(1 if isinstance(engine.failure, mpspmd.RankDied) else 0)


if __name__ == "__main__":
    assert threading.current_thread() is threading.main_thread()
    main()
