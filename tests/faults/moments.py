"""Plays a scene many times, and kills all of its processes at a random moment each time.

`python moments.py TIMES SEED` prints a line of JSON for each time. The imports, which take seconds,
are done once: each time is a fork of this process.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from typing import NoReturn

import scenes

_START_S = 0.3
"""About what a start takes when everything has been imported; half of it on a quick machine."""


def act(ready: int, folder: str) -> NoReturn:
    """A forked process: an engine that calls until it is killed."""
    os.mkdir(folder)
    tempfile.tempdir = folder
    os.setsid()
    os.dup2(ready, 1)
    os.close(ready)
    with scenes.make_engine() as engine:
        scenes.call_for_ever(engine)


def play_once(folder: str, at_work: bool, moment_s: float) -> dict[str, object]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        act(write, folder)
    os.close(write)
    if at_work:
        assert os.read(read, 1)
    while os.getpgid(pid) != pid:
        time.sleep(0.001)
    time.sleep(moment_s)
    os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    ready, _, _ = select.select([read], [], [], 0)
    was_ready = at_work or bool(ready and os.read(read, 1))
    os.close(read)
    exit_code = os.waitstatus_to_exitcode(status)
    return {"folder": folder, "was_ready": was_ready, "exit_code": exit_code}


def main(times: int, seed: int) -> None:
    import mpspmd.engine.engine  # noqa: F401

    moments = random.Random(seed)
    for i in range(times):
        # A third of the times at work, the others while it starts.
        at_work = i % 3 == 2
        folder = os.path.join(os.environ["SCENE_FOLDER"], str(i))
        played = play_once(folder, at_work, moments.uniform(0, 0.1 if at_work else _START_S))
        print(json.dumps(played), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
