"""Raises SIGINT at the lines of an engine's shutdown, one line for each shutdown.

`python interrupted_shutdown.py STEP` prints a line of JSON for every STEP-th line of the shutdown, and one
for a shutdown that isn't interrupted.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
from typing import Any

import psutil
import scenes

from mpspmd import Engine
from mpspmd.engine.ending import Ending
from mpspmd.engine.ranks import Ranks
from mpspmd.engine.supervisor import Supervisor
from mpspmd.processes.signals import signals_deferred

TRACED = {
    Engine.shutdown.__code__,
    Ending.shutdown.__code__,
    Ending._end.__code__,
    Supervisor.shut_down.__code__,
    Supervisor.close.__code__,
    Ranks.end.__code__,
    Ranks.close.__code__,
    signals_deferred.__wrapped__.__code__,  # type: ignore[attr-defined]
}


class Interrupt:
    """A trace function that raises SIGINT after so many lines."""

    def __init__(self, after: int) -> None:
        self._left = after
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_code not in TRACED:
            return None
        if event == "line" and not self.where:
            if self._left == 0:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
            self._left -= 1
        return self


def play(after: int) -> dict[str, Any]:
    engine = Engine(scenes.Actor, world_size=1)
    ranks = [psutil.Process(pid) for pid in engine.pids]
    interrupt = Interrupt(after)
    came = False
    try:
        sys.settrace(interrupt)
        engine.shutdown()
    except KeyboardInterrupt:
        came = True
    finally:
        sys.settrace(None)
    told = engine.failure is not None
    if not told:
        engine.shutdown()  # it came before anything was done
    return {
        "where": interrupt.where,
        "came": came,
        "told": told,
        "processes": [rank.pid for rank in ranks if rank.is_running()],
        "threads": [each.name for each in threading.enumerate() if each.name != "MainThread"],
        "handlers": [
            signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        ],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def main(step: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for after in itertools.count(0, step):
        played = play(after)
        print(json.dumps(played), flush=True)
        if not played["where"]:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
