"""A program whose standard error is a pipe that is full and that nobody reads: `python unread.py WHAT`."""

from __future__ import annotations

import os
import sys
import threading
import time

import mpspmd


class Worker(mpspmd.Worker):
    def leave(self, rank: int) -> None:
        if self.ctx.rank == rank:
            os._exit(3)
        time.sleep(60)

    def fail(self) -> None:
        raise ValueError("nobody is told")

    def execute_model(self) -> None:
        raise ValueError("the engine is told")

    def hang(self) -> None:
        time.sleep(60)

    def shutdown(self) -> None:
        if "SHUTDOWN" in os.environ:
            raise ValueError("in the worker's shutdown")


def fill_standard_error() -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    os.dup2(write, 2)
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(2, True)


def a_death(engine: mpspmd.Engine) -> None:
    called = threading.Event()
    engine.on_failure(lambda cause: called.set())
    try:
        engine.call("leave", (1,))
    except mpspmd.errors.RankDied as error:
        print(error.reason)
    print("called back" if called.wait(20) else "never called back")
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in engine.pids) and time.monotonic() < end:
        time.sleep(0.01)
    print("ranks are gone" if time.monotonic() < end else "ranks are left")


def faults_that_nobody_waits_for(engine: mpspmd.Engine) -> None:
    for _ in range(40):
        engine.call("fail", reply_ranks=None)
    failed = threading.Event()
    engine.on_failure(lambda cause: failed.set())
    engine.call("execute_model", reply_ranks=None)
    print("failed" if failed.wait(20) else "not failed")


def a_callback_that_raises(engine: mpspmd.Engine) -> None:
    called = threading.Event()
    engine.on_failure(lambda cause: called.set())
    engine.on_failure(lambda cause: 1 / 0)  # the last one is called first
    engine.call("leave", (1,), reply_ranks=None)
    print("called back" if called.wait(20) else "never called back")


def ranks_that_must_be_killed(engine: mpspmd.Engine) -> None:
    engine.call("hang", reply_ranks=None)


if __name__ == "__main__":
    fill_standard_error()
    config = mpspmd.RuntimeConfig.from_env(shutdown_timeout_s=0.3)
    engine = mpspmd.Engine(Worker, world_size=2, config=config)
    globals()[sys.argv[1]](engine)
    engine.shutdown()
    print("shut down", flush=True)
    os._exit(0)  # at its end Python itself writes what it still has for standard error
