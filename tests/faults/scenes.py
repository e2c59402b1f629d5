"""Scenes: what the processes of these tests do. Run as `python scenes.py SCENE`, or imported by ranks.

A scene prints one line of JSON with the pids when its engine is ready.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import mpspmd

if __name__ != "__main__" and (takes_s := float(os.environ.get("SCENE_IMPORT_TAKES", "0"))):
    # On a rank while its process starts, when it can't take any signal yet.
    Path(os.environ["SCENE_FOLDER"], "importing").touch()
    time.sleep(takes_s)


class Actor(mpspmd.Worker):
    """Sleeps, ends, fails, or leaves marks, as told."""

    def __init__(
        self, ctx: mpspmd.RankContext, takes_s: float = 0.0, scratch: Path | None = None
    ) -> None:
        super().__init__(ctx)
        if scratch:
            scratch.touch()
        if takes_s:
            Path(os.environ["SCENE_FOLDER"], "making").touch()
            time.sleep(takes_s)

    def sleep(self, seconds: float) -> None:
        self._mark("in-method")
        time.sleep(seconds)

    def echo(self, value: Any) -> Any:
        return value

    def end(self, rank: int, code: int) -> None:
        if self.ctx.rank == rank:
            os._exit(code)
        time.sleep(0.2)

    def execute_model(self, rank: int, go: str = "") -> None:
        if self.ctx.rank == rank:
            wait_for(go)
            raise ValueError("a failed step")

    def fail_on(self, rank: int, go: str) -> None:
        if self.ctx.rank == rank:
            wait_for(go)
            raise ValueError("a failed call")

    def fill_memory(self, rank: int, size: int) -> None:
        if self.ctx.rank == rank:
            self._memory = b"x" * size

    def reduce_without(self, rank: int, how: str) -> None:
        """A collective in which one rank doesn't take part."""
        import torch
        import torch.distributed as dist

        self.ctx.init_process_group()
        if self.ctx.rank != rank:
            dist.all_reduce(torch.ones(1))
        time.sleep(0.2)  # the others wait by now
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        # Closes its connections, so that the others have their error before this one has raised.
        dist.destroy_process_group()
        raise ValueError("the cause")

    def hold_the_gil(self) -> None:
        """For ever. PyDLL keeps the lock while the C function runs, and SIGTERM is blocked."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._mark("in-method")
        ctypes.PyDLL(None).sleep(600)

    def spin_in_python(self) -> None:
        self._mark("in-method")
        while True:
            pass

    def stall(self, rank: int, how: str, go: str) -> None:
        """One rank waits until the file `go` begins with a one; the others don't, unless they meet it in a
        collective."""
        if self.ctx.rank == rank:
            getattr(self, f"stall_{how}")(go)
        if how == "before_a_collective":
            import torch
            import torch.distributed as dist

            dist.all_reduce(torch.ones(1))

    def stall_asleep(self, go: str) -> None:
        with _mapped(go) as byte:
            while not byte[0]:
                time.sleep(0.01)

    def stall_in_python(self, go: str) -> None:
        with _mapped(go) as byte:
            while not byte[0]:
                pass

    def stall_in_c(self, go: str) -> None:
        """One call of a C function that keeps the interpreter's lock: C code alone reads the file."""
        with _mapped(go) as byte:
            any(map(byte.__getitem__, itertools.repeat(0)))

    def stall_stopped(self, go: str) -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGSTOP)

    def stall_before_a_collective(self, go: str) -> None:
        self.stall_asleep(go)

    def meet(self) -> None:
        self.ctx.init_process_group()

    def threads_that_never_end(self) -> None:
        import threading

        threading.Thread(target=time.sleep, args=(600,)).start()

    def shutdown(self) -> None:
        self._mark("shutdown")

    def _mark(self, what: str) -> None:
        if folder := os.environ.get("SCENE_FOLDER"):
            Path(folder, f"{what}-{self.ctx.rank}").touch()


def wait_for(path: str) -> None:
    """Until there is such a file; "" is none."""
    while path and not os.path.exists(path):
        time.sleep(0.001)


def _mapped(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)


def make_engine(*args: Any) -> mpspmd.Engine:
    scratch = Path(os.environ["SCENE_FOLDER"], f"scratch-{os.getpid()}")
    engine = mpspmd.Engine(
        Actor, world_size=2, args=args, kwargs={"scratch": scratch}, remove_at_end=[str(scratch)]
    )
    print(json.dumps([os.getpid(), *engine.pids]), flush=True)
    return engine


def call_for_ever(engine: mpspmd.Engine) -> None:
    value = os.urandom(100_000)
    while True:
        assert engine.collective_rpc("echo", args=(value,)) == [value, value]


def scene_idle() -> None:
    with make_engine():
        time.sleep(600)


def give_ranks_time() -> None:
    """On a busy machine a rank may need more than a second to end after a SIGTERM."""
    from mpspmd.processes import spawn

    spawn._TERM_GRACE_S = 20.0


def scene_calls() -> None:
    give_ranks_time()
    with make_engine() as engine:
        call_for_ever(engine)


def scene_busy(method: str) -> None:
    give_ranks_time()
    with make_engine() as engine:
        engine.collective_rpc(method, args=(600,) if method == "sleep" else ())


def scene_slow_start() -> None:
    make_engine(600.0)


def scene_interrupted_while_starting_a_process() -> None:
    """Ctrl-C comes when the system has made the process, and multiprocessing doesn't know it yet."""
    from multiprocessing import util

    util.spawnv_passfds = _then_interrupt(util.spawnv_passfds)
    make_engine()


def scene_interrupted_after_starting_a_process() -> None:
    """Ctrl-C comes when a process has been started."""
    from mpspmd.processes.child import Child

    Child.start = _then_interrupt(Child.start)  # type: ignore[method-assign]
    make_engine(600.0)


def scene_interrupted_after_starting_the_supervisor() -> None:
    """Ctrl-C comes when the thread runs, and the engine doesn't know it yet."""
    from mpspmd.engine import supervisor

    supervisor.start_thread = _then_interrupt(supervisor.start_thread)
    make_engine(600.0)


def _then_interrupt(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if args[0] is not None and "resource_tracker" not in str(args):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # for any thread that can take the signal
        return result

    return call


def scene_forgetful() -> None:
    """Ends without shutdown()."""
    engine = make_engine()
    assert engine.collective_rpc("echo", args=(1,)) == [1, 1]


def scene_threads_that_never_end() -> None:
    """Ends without shutdown(), and its ranks don't end by themselves."""
    os.environ["MPSPMD_SHUTDOWN_TIMEOUT_S"] = "0.5"
    engine = make_engine()
    engine.collective_rpc("threads_that_never_end")


def scene_fails_in_the_middle() -> None:
    """Ends with an exception of its own, and without shutdown()."""
    engine = make_engine()
    engine.call("sleep", (0.3,), reply_ranks=None)
    raise SystemExit(5)


def play(scene: str, *args: str) -> None:
    # The parent may ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    globals()[f"scene_{scene}"](*args)


if __name__ == "__main__":
    play(*sys.argv[1:])
