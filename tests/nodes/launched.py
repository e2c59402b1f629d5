"""What mpspmd-launch starts on each node, for tests. argv: what happens on rank 1 in the first attempt; or
"main raises", in the first attempt; or "goes on": an engine with several ranks calls them for a minute."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import mpspmd


class Worker(mpspmd.Worker):
    def execute_model(self, what: str) -> list[Any]:
        if self.ctx.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if what == "raises":
                raise ValueError("on purpose")
            if what == "exits":
                raise SystemExit(9)
            if what == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
        variables = [int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        return [self.ctx.rank, self.ctx.node_rank, self.ctx.local_rank, *variables]


def main(engine: mpspmd.Engine) -> None:
    print("places", engine.collective_rpc("execute_model", (sys.argv[1],)), flush=True)
    if sys.argv[1] == "main raises" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        raise ValueError("in main")
    end = time.monotonic() + 60
    while sys.argv[1] == "goes on" and engine.world_size > 1 and time.monotonic() < end:
        engine.collective_rpc("execute_model", (sys.argv[1],))


if __name__ == "__main__":
    mpspmd.run(Worker, main)
