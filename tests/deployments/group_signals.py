"""Signals to the whole process group, at each moment of a run.

`python group_signals.py WHAT`; see the functions whose names begin with `of_`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import mpspmd
from mpspmd.processes import spawn

SIGNALS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGTERM,  # a second one
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGRTMIN + 3,
    signal.SIGRTMIN + 7,  # by which an engine asks its ranks for their stacks
)


def signal_group() -> None:
    for number in SIGNALS:
        os.killpg(0, number)
    time.sleep(0.1)  # they have come


def say(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


class Worker(mpspmd.Worker):
    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        if "SIGNALS_WHILE_STARTING" in os.environ and ctx.rank == 0:
            signal_group()

    def execute_model(self, value: str) -> str:
        return value

    def signal_group(self) -> None:
        signal_group()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def shutdown(self) -> None:
        if "SIGNALS_WHILE_ENDING" in os.environ and self.ctx.rank == 0:
            signal_group()
        say("rank", self.ctx.rank, "is shut down")


def of_an_engine_that_goes_on() -> None:
    """It has a handler for each, such as one that stops accepting requests."""
    for number in set(SIGNALS):
        signal.signal(number, lambda *_: None)
    os.environ["SIGNALS_WHILE_STARTING"] = os.environ["SIGNALS_WHILE_ENDING"] = "1"
    with mpspmd.Engine(Worker, world_size=2) as engine:
        signal_group()  # while the ranks wait
        engine.collective_rpc("signal_group")
        say(*engine.collective_rpc("execute_model", ("answer",)))


def of_an_engine_that_has_no_handler(number: str) -> None:
    if int(number) != signal.SIGKILL:
        signal.signal(
            int(number), signal.SIG_DFL
        )  # nohup, and a background job's shell, ignore some
    with mpspmd.Engine(Worker, world_size=2) as engine:
        engine.call("sleep", (60,), reply_ranks=None)
        while any(rank.method != "sleep" for rank in engine.stats().ranks):
            time.sleep(0.01)
        os.killpg(0, int(number))
        time.sleep(60)


def of_an_engine_that_insists() -> None:
    """A rank that doesn't leave by itself gets a SIGTERM from it, within a method."""
    spawn._TERM_GRACE_S = 20.0  # a busy machine may need more than a second
    config = mpspmd.RuntimeConfig.from_env(shutdown_timeout_s=0.2)
    with mpspmd.Engine(Worker, world_size=2, config=config) as engine:
        engine.call("sleep", (60,), reply_ranks=None)
        while any(rank.method != "sleep" for rank in engine.stats().ranks):
            time.sleep(0.01)


def of_a_launched_engine() -> None:
    mpspmd.run(Worker, drain)


def drain(engine: mpspmd.Engine) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    say("ready")
    while not stop.is_set():
        engine.execute_model("answer")
    for _ in range(20):
        assert engine.execute_model("answer") == "answer"
        time.sleep(0.02)
    say("drained")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    globals()[f"of_{what}"](*arguments)
elif "SIGNALS_WHILE_STARTING" in os.environ:
    # A rank imports this. Signals that come now may come to one that has just been started, too.
    with contextlib.suppress(ProcessLookupError):
        signal_group()
