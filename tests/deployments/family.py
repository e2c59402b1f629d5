"""An engine in a process whose children somebody else waits for, or that is somebody's child itself.

`python family.py WHAT`; see the functions whose names begin with `of_`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

import mpspmd
from mpspmd.errors import EngineClosed, RankDied


def say(*words: object) -> None:
    """In one piece: several processes write to this file."""
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


class Member(mpspmd.Worker):
    def execute_model(self, value: Any) -> Any:
        return value

    def end(self, rank: int) -> None:
        if self.ctx.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def shutdown(self) -> None:
        say("a worker is shut down")


def make_engine() -> mpspmd.Engine:
    return mpspmd.Engine(Member, world_size=2)


def work(_: object = None) -> str:
    with make_engine() as engine:
        assert engine.execute_model("hello") == "hello"
    return "worked"


def be_killed() -> None:
    with make_engine() as engine:
        try:
            engine.collective_rpc("end", (1,))
        except RankDied as error:
            say(f"rank {error.rank}: {error.reason}")


# Of a program whose children somebody else waits for.


def ignore_children() -> None:
    """The kernel forgets a child as soon as it has ended. Ray sets this."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def reap_children() -> None:
    """As a program does that is process 1 of a container."""

    def reap() -> None:
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.001)

    threading.Thread(target=reap, daemon=True).start()


def of_a_program_that(way: str, then: str) -> None:
    prepare = {"ignores": ignore_children, "reaps": reap_children, "waits_for_nobody": lambda: None}
    prepare[way]()
    if then == "works":
        say(work())
    elif then == "forgets":
        global forgotten
        forgotten = make_engine()
        say("worked")
    else:
        be_killed()


# Of a process that is a child itself.


def of_a_pool(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        say(*pool.map(work, range(2)))


def of_an_executor(method: str) -> None:
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        say(*executor.map(work, range(2)))


def of_a_daemon(method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=work_and_say, daemon=True)
    process.start()
    process.join()


def of_a_daemon_that_its_parent_ends(number: str) -> None:
    read, write = os.pipe()
    process = multiprocessing.get_context("fork").Process(
        target=wait_with_an_engine, args=(write,), daemon=True
    )
    process.start()
    os.read(read, 1)
    assert process.pid is not None
    os.kill(process.pid, int(number))
    process.join()
    say("ended by", -(process.exitcode or 0))


def of_a_daemon_that_leaves_at_once() -> None:
    process = multiprocessing.get_context("fork").Process(target=leave_at_once, daemon=True)
    process.start()
    process.join()
    say("left with", process.exitcode)


def work_and_say() -> None:
    say(work())


def wait_with_an_engine(ready: int) -> None:
    with make_engine():
        os.write(ready, b"!")
        time.sleep(60)


def leave_at_once() -> None:
    make_engine()
    os._exit(3)


# Of a fork of the engine's process.


def of_a_fork(then: str) -> None:
    global under_way
    with make_engine() as engine:
        assert asyncio.run(engine.execute_model_async("awaited")) == "awaited"
        under_way = engine.execute_model("under way", non_block=True)
        if os.fork() == 0:
            if then == "unwinds":
                sys.exit(0)  # through the engine's __exit__, and through all that is done at exit
            globals()[f"in_a_fork_{then}"](engine)
            os._exit(0)
        _, status = os.wait()
        say("status", status)
        assert under_way.result() == "under way"
        assert engine.execute_model("still there") == "still there"
    say("worked")


def in_a_fork_uses_it(engine: mpspmd.Engine) -> None:
    uses: list[Any] = [
        lambda: engine.execute_model(1),
        lambda: engine.execute_model(1, non_block=True),
        lambda: engine.steps.send("execute_model", (1,)),
        lambda: asyncio.run(asyncio.wait_for(engine.execute_model_async(1), 10)),
        lambda: under_way.result(),
        lambda: concurrent.futures.wait([under_way], 10),
        lambda: engine.stats(),
        lambda: engine.pids,
        lambda: engine.on_failure(say),
    ]
    for use in uses:
        try:
            use()
            say("no error")
        except EngineClosed as error:
            words = f"belongs to process {os.getppid()}", "make an engine after the fork"
            if not all(each in str(error) for each in words):
                say(error)
    engine.shutdown()


def in_a_fork_makes_its_own(engine: mpspmd.Engine) -> None:
    say(work())


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    globals()[f"of_{what}"](*arguments)
