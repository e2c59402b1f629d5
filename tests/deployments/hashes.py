"""Prints what each process hashes a text to: an engine and its ranks, or ranks alone."""

from __future__ import annotations

import os
import sys

import mpspmd

TEXT = "a text"


class Worker(mpspmd.Worker):
    def hash(self) -> tuple[int, str]:
        return hash(TEXT), os.environ.get("PYTHONHASHSEED", "none")


def main(engine: mpspmd.Engine) -> None:
    for number, seed in [(hash(TEXT), "engine"), *engine.collective_rpc("hash")]:
        print(number, seed, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["ranks"]:
        print(hash(TEXT), flush=True)
        sys.exit(os.environ["TORCHELASTIC_RESTART_COUNT"] == "0")
    mpspmd.run(Worker, main, world_size=2)
