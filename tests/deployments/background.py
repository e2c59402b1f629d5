"""A worker that leaves work to threads: `background.py HOW RANKS`."""

from __future__ import annotations

import atexit
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpspmd


class Worker(mpspmd.Worker):
    """Leaves a file for what has been done, in the folder that it runs in."""

    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        self._folder = Path.cwd()

    def begin(self, how: str) -> None:
        atexit.register(self._end)
        if how == "pool":
            self.pool = ThreadPoolExecutor(1)
            for number in range(3):
                self.pool.submit(self._work, str(number))
        elif how == "thread":
            threading.Thread(target=self._work, args=("0",)).start()
        else:
            threading.Thread(target=time.sleep, args=(600,)).start()

    def execute_model(self, code: int) -> None:
        sys.exit(code)

    def _work(self, name: str) -> None:
        time.sleep(0.3)
        (self._folder / f"{self.ctx.rank}-{name}").touch()

    def _end(self) -> None:
        done = sorted(path.name for path in self._folder.glob(f"{self.ctx.rank}-*"))
        (self._folder / f"end-{self.ctx.rank}").write_text(" ".join(done))


def main(engine: mpspmd.Engine) -> None:
    engine.collective_rpc("begin", args=(sys.argv[1],))


if __name__ == "__main__":
    mpspmd.run(Worker, main, world_size=2)
