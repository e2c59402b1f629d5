"""An engine that tells who runs, in a file, and works until there is another file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import echo

import mpspmd


def main(engine: mpspmd.Engine) -> None:
    begun = Path("running.part")
    begun.write_text(f"{os.getpid()} {engine.pids[0]}")
    begun.rename("running")
    while not Path("end").exists():
        assert engine.execute_model("hello") == "hello"
        time.sleep(0.01)
    print("ok", flush=True)


if __name__ == "__main__":
    mpspmd.run(echo.Echo, main, world_size=1)
