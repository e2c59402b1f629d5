"""Starts an engine and prints what mpspmd-top says of it, as JSON."""

from __future__ import annotations

import os
import subprocess
import sys

from echo import Echo

import mpspmd


def main(engine: mpspmd.Engine) -> None:
    program = "from mpspmd.cli.top import main; main()"
    subprocess.run([sys.executable, "-c", program, "--json", str(os.getpid())], check=True)


if __name__ == "__main__":
    mpspmd.run(Echo, main, world_size=2)
