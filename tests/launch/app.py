"""What the launcher starts in its tests: `app.py WHAT`, as engine and as ranks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import mpspmd
from mpspmd.processes import spawn


class Actor(mpspmd.Worker):
    """Works, prints, raises, or dies, as told."""

    def __init__(self, ctx: mpspmd.RankContext, what: str, *arguments: str) -> None:
        super().__init__(ctx)
        self.arguments = arguments
        if what == "fails-at-start" and ctx.rank == 1:
            raise RuntimeError("no weights for this rank")

    def execute_model(self, number: int) -> tuple[int, int, int]:
        return self.ctx.rank, self.ctx.world_size, number

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("_")}

    def numbers(self) -> list[tuple[int, int]]:
        """The context's, beside torchrun's variables for the same."""
        of_context = {
            "RANK": self.ctx.rank,
            "LOCAL_RANK": self.ctx.local_rank,
            "WORLD_SIZE": self.ctx.world_size,
            "GROUP_RANK": self.ctx.node_rank,
            "GROUP_WORLD_SIZE": self.ctx.num_nodes,
        }
        return [(number, int(os.environ[name])) for name, number in of_context.items()]

    def say(self, text: str) -> None:
        print(text, self.ctx.rank)
        print("err", text, self.ctx.rank, file=sys.stderr)

    def end(self, how: str) -> None:
        if self.ctx.rank != 1:
            return
        if how == "raises":
            raise ValueError("this rank has had enough")
        if how == "exits":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    def shutdown(self) -> None:
        if folder := os.environ.get("MARKS"):
            Path(folder, f"shutdown-{self.ctx.rank}").touch()


def main(engine: mpspmd.Engine, what: str, *arguments: str) -> None:
    spawn._TERM_GRACE_S = 20.0  # a busy machine may need more than a second
    mark_start(engine)
    if what == "talks":
        engine.collective_rpc("say", args=("hello",))
        print("from the engine")
    elif what == "waits":
        time.sleep(60)
    elif what == "works":
        while True:
            engine.execute_model(1)
    elif what == "tells":
        print(*arguments)
        ours: Any = [dict(os.environ), *engine.collective_rpc("environment")]
        for environment in ours:
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OWN")
            print(*(environment.get(name) for name in names))
    elif what == "counts":
        print(engine.collective_rpc("numbers"))
    elif what == "engine-fails":
        raise KeyError("the engine's own")
    elif what == "engine-dies":
        os._exit(5)
    else:
        engine.collective_rpc("end", args=(what,))


def mark_start(engine: mpspmd.Engine) -> None:
    """A line for each start; the pids of all processes."""
    if folder := os.environ.get("MARKS"):
        with open(f"{folder}/starts", "a") as file:
            print(os.getpid(), *engine.pids, file=file, flush=True)


if __name__ == "__main__":
    if sys.argv[1] != "never-runs" or "RANK" in os.environ:
        mpspmd.run(Actor, lambda engine: main(engine, *sys.argv[1:]), args=tuple(sys.argv[1:]))
