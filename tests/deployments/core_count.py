"""An engine that prints how many cores its run counts on: at once, and whenever that changes."""

from __future__ import annotations

import sys
import time

from echo import Echo

import mpspmd
from mpspmd.engine import supervisor

supervisor._COUNT_CORES_S = 0.05


def main(engine: mpspmd.Engine) -> None:
    said = 0
    while True:
        cores = engine._channel.status.spinners[1] + 1
        if cores != said:
            print(cores, flush=True)
            said = cores
        engine.execute_model("hello")
        time.sleep(0.02)


if __name__ == "__main__":
    mpspmd.run(Echo, main, world_size=int(sys.argv[1]))
