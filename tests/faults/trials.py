"""Kills one process of a run, or all of them, at a random moment, and reports what the others made of it.

`python trials.py one|all TIMES SEED` prints a line of JSON for each trial. The imports, which take seconds,
are done once: each trial's engine is a fork of this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil
import scenes

import mpspmd
from mpspmd.errors import MpSpmdError, RankDied

WORLD_SIZE = 2
ENGINE, ALL = -1, -2
"""Victims, where a rank's number stands for a rank."""
MOMENTS = {"start": 0.8, "idle": 0.2, "load": 0.2, "shutdown": 0.02}
"""And how long after its beginning the victim is killed at the latest, in seconds."""
ENDS = {
    "SIGKILL": "killed by SIGKILL",
    "SIGSEGV": "killed by SIGSEGV",
    "SIGTERM": "killed by SIGTERM",
    "exit": "exit code 3",
}
_EXIT = signal.SIGUSR1
_LONGEST_S = 30.0
_ATTEMPTS = 20


class Mortal(scenes.Actor):
    """Ends with an exit code when it gets a signal."""

    def __init__(self, ctx: mpspmd.RankContext, scratch: Path) -> None:
        super().__init__(ctx, scratch=scratch)
        signal.signal(_EXIT, lambda *_: os._exit(3))


@dataclass
class Trial:
    """What is done, and what came of it."""

    moment: str
    victim: int
    """A rank, ENGINE or ALL."""
    end: str
    delay_s: float
    in_flight: int
    hit: bool = False
    """Whether the victim was alive when it was killed."""
    was_ready: bool = False
    told: list[str] = field(default_factory=list)
    """The exceptions that the engine's callers got, in words."""
    notice_s: float | None = None
    """From the kill to the first of them."""
    gone_s: float | None = None
    """From the kill to the end of the last process."""
    left: list[str] = field(default_factory=list)
    """Processes and files that are still there after that."""


def act(trial: Trial, folder: str, report: int) -> NoReturn:
    """The engine's process."""
    os.setsid()
    tempfile.tempdir = folder
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    told: list[tuple[float, str]] = []

    def tell(error: BaseException) -> None:
        told.append((time.monotonic(), describe(error)))

    try:
        config = mpspmd.RuntimeConfig.from_env(shutdown_timeout_s=2)
        scratch = Path(folder, "scratch")
        engine = mpspmd.Engine(
            Mortal,
            world_size=WORLD_SIZE,
            args=(scratch,),
            config=config,
            remove_at_end=[str(scratch)],
        )
        send(report, {"pids": engine.pids})
        if trial.moment == "load":
            call_until_it_fails(engine, trial.in_flight, tell)
        elif trial.moment == "idle":
            wait_until_it_fails(engine, tell)
        engine.shutdown()
    except MpSpmdError as error:
        tell(error)
    send(report, {"told": told, "children": rank_processes(os.getpid())})
    os._exit(0)


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n\nTraceback")[0]


def call_until_it_fails(engine: mpspmd.Engine, in_flight: int, tell: Any) -> None:
    value = os.urandom(2000)

    def call() -> None:
        try:
            while True:
                assert engine.collective_rpc("echo", (value,)) == [value] * WORLD_SIZE
        except MpSpmdError as error:
            tell(error)

    threads = [threading.Thread(target=call) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_until_it_fails(engine: mpspmd.Engine, tell: Any) -> None:
    failed = threading.Event()
    engine.on_failure(lambda cause: failed.set())
    if failed.wait(_LONGEST_S) and isinstance(engine.failure, RankDied):
        tell(engine.failure)


def send(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def play(trial: Trial, folder: str) -> None:
    os.mkdir(folder)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        act(trial, folder, write)
    os.close(write)
    with os.fdopen(read) as report:
        ranks: list[int] = []
        if trial.moment != "start":
            ranks = json.loads(report.readline())["pids"]
        while os.getpgid(pid) != pid:  # it makes a process group of its own
            time.sleep(0.001)
        time.sleep(trial.delay_s)
        killed = kill(trial, pid, ranks)
        messages = [json.loads(line) for line in report]
    trial.was_ready = bool(ranks) or any("pids" in message for message in messages)
    for message in messages:
        for when, text in message.get("told", []):
            trial.told.append(text)
            trial.notice_s = min(when - killed, trial.notice_s or when - killed)
        trial.left += [f"child {child}" for child in message.get("children", [])]
    _, status = os.waitpid(pid, 0)
    if trial.victim == ALL:
        trial.hit = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    find_what_is_left(trial, pid, folder, killed)


def kill(trial: Trial, engine: int, ranks: list[int]) -> float:
    """Returns when."""
    victim = engine
    if trial.victim >= 0:
        ranks = ranks or rank_processes(engine)
        victim = ranks[trial.victim] if trial.victim < len(ranks) else -1
    number = _EXIT if trial.end == "exit" else signal.Signals[trial.end]
    now = time.monotonic()
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        if trial.victim == ALL:
            os.killpg(engine, number)
        elif victim > 0:
            # A zombie takes signals too, but only a living process counts.
            trial.hit = psutil.Process(victim).status() != psutil.STATUS_ZOMBIE
            os.kill(victim, number)
    return now


def rank_processes(engine: int) -> list[int]:
    """Those that are there, in rank order. Zombies count, too, whatever they were."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(engine).children()
    ranks = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE or "spawn_main" in " ".join(child.cmdline()):
                # Numbers of processes begin anew some time.
                ranks.append((child.create_time(), child.pid))
    return [pid for _, pid in sorted(ranks)]


def find_what_is_left(trial: Trial, session: int, folder: str, killed: float) -> None:
    deadline = time.monotonic() + 30
    while (left := processes(session)) and time.monotonic() < deadline:
        time.sleep(0.01)
    trial.gone_s = time.monotonic() - killed
    if trial.victim == ALL and not trial.was_ready:
        # Nobody may have been there yet to remove the folder; the next run does.
        trial.left += left
        return
    while (files := os.listdir(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    trial.left += left + files


def processes(session: int) -> list[str]:
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                found.append(f"{pid} {process.status()} {' '.join(process.cmdline())[-60:]}")
    return found


def draw_all(trials: random.Random, number: int) -> Trial:
    """A third of the times at work, the others while it starts."""
    moment = "load" if number % 3 == 2 else "start"
    longest = {"start": 0.3, "load": 0.1}[moment]  # about what a start takes, without the imports
    return Trial(moment, ALL, "SIGKILL", trials.uniform(0, longest), 1)


def draw_one(trials: random.Random, number: int) -> Trial:
    moment = list(MOMENTS)[number % len(MOMENTS)]
    ends = list(ENDS)
    victim = trials.randrange(ENGINE, WORLD_SIZE)
    if moment == "start" or victim < 0:
        ends.remove("exit")  # nobody is there yet who would do it
    if victim >= 0:
        ends.remove("SIGTERM")  # a rank leaves that to its engine
    delay_s = trials.uniform(0, MOMENTS[moment])
    return Trial(moment, victim, trials.choice(ends), delay_s, trials.randint(1, 4))


def main(victims: str, times: int, seed: int) -> None:
    import mpspmd.engine.engine  # noqa: F401

    trials = random.Random(seed)
    draw = draw_all if victims == "all" else draw_one
    folder = Path(os.environ["SCENE_FOLDER"])
    for number in range(times):
        for attempt in range(_ATTEMPTS):
            trial = draw(trials, number)
            play(trial, str(folder / f"{number}-{attempt}"))
            # On a fast machine the whole run may be over before the kill. Another moment is drawn then.
            if trial.hit or trial.victim != ALL:
                break
        print(json.dumps(asdict(trial)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
