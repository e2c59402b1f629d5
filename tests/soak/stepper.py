"""An engine in a process of its own. For each number in a line of standard input it runs so many steps,
and prints a line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import mpspmd

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import workers

if __name__ == "__main__":
    with mpspmd.Engine(workers.Calculator, world_size=2) as engine:
        print(json.dumps([os.getpid(), *engine.pids]), flush=True)
        for line in sys.stdin:
            for number in range(int(line)):
                engine.collective_rpc("echo", args=(number,))
            print("done", flush=True)
