"""An engine of which one rank is held for a while, as gdb does it: prints what a timeout reports of it."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import mpspmd

ATTACH, DETACH = 16, 17
ALL_THREADS = 0x40000000  # __WALL

ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class Worker(mpspmd.Worker):
    def execute_model(self, value: Any) -> Any:
        return value


if __name__ == "__main__":
    with mpspmd.Engine(Worker, world_size=2) as engine:
        engine.execute_model(0)
        threads = [int(name) for name in os.listdir(f"/proc/{engine.pids[1]}/task")]
        for thread in threads:
            if ptrace(ATTACH, thread, None, None) != 0:
                print(os.strerror(ctypes.get_errno()))
                sys.exit(77)
            os.waitpid(thread, ALL_THREADS)
        try:
            engine.collective_rpc("execute_model", (1,), timeout=1)
        except mpspmd.errors.StepTimeout as error:
            if error.report is not None:
                rank = error.report.ranks[1]
                print(error.report.suspects, rank, rank.stacks, sep="\n")
        for thread in threads:
            ptrace(DETACH, thread, None, None)
        print(engine.collective_rpc("execute_model", (1,)))
