"""The smallest program with an engine: calls its ranks once, and prints `ok`."""

from __future__ import annotations

import sys
from typing import Any

import mpspmd


class Echo(mpspmd.Worker):
    def execute_model(self, value: Any) -> Any:
        return value


def main(engine: mpspmd.Engine) -> None:
    assert engine.execute_model("hello") == "hello"
    print("ok", flush=True)


if __name__ == "__main__":
    mpspmd.run(Echo, main, world_size=int(sys.argv[1]) if len(sys.argv) > 1 else None)
