"""Prints as a C library would, to the descriptors 0, 1 and 2, while an engine runs.

usage: descriptors.py OUT TEXT: TEXT is what it prints; into the file OUT it writes a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import mpspmd


def _print(text: str) -> None:
    for fd in range(3):
        with contextlib.suppress(OSError):
            os.write(fd, f"{text}\n".encode() * 100)


def _low() -> list[str]:
    """What the descriptors 0, 1 and 2 are."""
    return [os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in range(3)]


class Printing(mpspmd.Worker):
    def execute_model(self, value: Any) -> Any:
        _print(sys.argv[2])
        return value

    def low(self) -> list[str]:
        return _low()


def main(engine: mpspmd.Engine) -> None:
    replies = []
    for value in range(3):
        _print(sys.argv[2])
        replies.append(engine.execute_model(value, timeout=30))
    found = {"engine": _low(), "rank": engine.collective_rpc("low")[0], "replies": replies}
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    mpspmd.run(Printing, main, world_size=1)
