"""Marks, in files, which signals it gets: as ranks without an engine, or as an engine with ranks.

Files: `WHO-runs` (with its process id), `WHO-USR1`, `WHO-ended`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import mpspmd
from mpspmd.processes import spawn


def mark(who: str, what: str) -> None:
    part = Path(f".{who}-{what}")
    part.write_text(str(os.getpid()))
    part.rename(f"{who}-{what}")


def live(who: str) -> None:
    """Until SIGTERM."""
    signal.signal(signal.SIGUSR1, lambda *_: mark(who, "USR1"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    mark(who, "runs")
    try:
        time.sleep(60)
    finally:
        mark(who, "ended")


class Worker(mpspmd.Worker):
    def load_model(self) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: mark(str(self.ctx.rank), "USR1"))
        mark(str(self.ctx.rank), "runs")

    def shutdown(self) -> None:
        mark(str(self.ctx.rank), "ended")


def main(engine: mpspmd.Engine) -> None:
    spawn._TERM_GRACE_S = 20.0  # a busy machine may need more than a second
    engine.collective_rpc("load_model")
    live("engine")


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        if "RANK" in os.environ:
            # A rank gets what is sent to all, also before it has come to its loop.
            for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)
        mpspmd.run(Worker, main)
    else:
        live(os.environ["RANK"])
