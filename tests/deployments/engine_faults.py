"""A front end, which has another file under the descriptor of its file of causes if `replaced` is given.

A process that it starts, as EngineCore is, reports a cause to it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from mpspmd.errors import RankDied
from mpspmd.vllm import causes


def report() -> None:
    causes.report(RankDied(1, 2, "execute_model", 3, "killed by SIGKILL"))


if __name__ == "__main__":
    causes.open_file()
    if len(sys.argv) > 1:
        number = int(os.environ["_MPSPMD_CAUSES"].rpartition("/")[2])
        os.dup2(os.open(sys.argv[1], os.O_RDWR), number)
    process = multiprocessing.get_context("spawn").Process(target=report)
    process.start()
    process.join()
    print(process.exitcode, causes.latest())
