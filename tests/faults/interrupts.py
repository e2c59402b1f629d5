"""Sends SIGINT to all processes of a run at a random moment, again and again, as Ctrl-C does.

`python interrupts.py TIMES SEED` prints a line of JSON for each time. The imports, which take seconds, are
done once: each engine is a fork of this process, and ends as a script would.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

import scenes
import start_notes
import trials

MOMENTS = {"start": 1.0, "load": 0.2, "shutdown": 0.03}
"""And how long each lasts, in seconds; the start as a share of the time that a first one has taken."""


def act(moment: str, folder: str, report: int) -> NoReturn:
    tempfile.tempdir = folder
    os.environ["SCENE_FOLDER"] = folder
    errors = os.open(f"{folder}.err", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        os.setsid()  # play() waits for this
        with scenes.make_engine() as engine:
            trials.send(report, {})
            if moment == "load":
                scenes.call_for_ever(engine)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        code = 130  # the user's own; there is only one
    finally:
        multiprocessing_util._exit_function()  # type: ignore[attr-defined]
        os._exit(code)


def play(moment: str, delay_s: float, folder: str) -> dict[str, Any]:
    os.mkdir(folder)
    read, write = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        act(moment, folder, write)
    os.close(write)
    if moment == "start":
        while os.getpgid(pid) != pid:
            time.sleep(0.001)
    else:
        os.read(read, 100)
    waited_s = time.monotonic() - began
    time.sleep(delay_s)
    interrupted = time.monotonic()
    os.killpg(pid, signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - interrupted
    os.close(read)
    errors = Path(f"{folder}.err")
    text = start_notes.without_start_notes(errors.read_text())
    # The engine's process writes its pids, as JSON, into the same file.
    said = [line for line in text.splitlines() if not re.fullmatch(r"\[[\d, ]+\]", line)]
    return {
        "moment": moment,
        "waited_s": waited_s,
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "said": said,
        "left": _left(pid, folder),
    }


def _left(session: int, folder: str) -> list[str]:
    deadline = time.monotonic() + 20
    # The files with which workers mark their shutdown stay.
    while left := trials.processes(session) + [
        name for name in os.listdir(folder) if not name.startswith("shutdown-")
    ]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.01)
    return []


def main(times: int, seed: int) -> None:
    from mpspmd import Engine  # noqa: F401

    scenes.give_ranks_time()
    moments = random.Random(seed)
    start_s = play("load", 0.0, str(Path(os.environ["SCENE_FOLDER"], "first")))["waited_s"]
    for number in range(times):
        moment = list(MOMENTS)[number % len(MOMENTS)]
        folder = str(Path(os.environ["SCENE_FOLDER"], str(number)))
        delay_s = moments.uniform(0, MOMENTS[moment]) * (start_s if moment == "start" else 1)
        print(json.dumps(play(moment, delay_s, folder)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
