"""A rank opens shared memory by its name, and makes some of its own.

usage: attach.py NAME [close|unlink]: what becomes of what it has made; else it is left.
"""

from __future__ import annotations

import sys
from multiprocessing.shared_memory import SharedMemory

import mpspmd


class Attaching(mpspmd.Worker):
    def attach(self, name: str) -> int:
        attached = SharedMemory(name=name)
        self.made = SharedMemory(create=True, size=100)
        SharedMemory(name=self.made.name).close()
        first = attached.buf[0]
        attached.close()
        if sys.argv[2:] == ["unlink"]:
            SharedMemory(name=self.made.name).unlink()
        return int(first)


def main(engine: mpspmd.Engine) -> None:
    print(engine.collective_rpc("attach", (sys.argv[1],)), flush=True)


if __name__ == "__main__":
    mpspmd.run(Attaching, main, world_size=2)
