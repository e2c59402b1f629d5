"""ToldProgram: a Python process that runs the lines that it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import mpspmd
if __name__ == "__main__":
    for line in sys.stdin:
        answer = None
        exec(line)
        print(json.dumps(answer), flush=True)
"""


class ToldProgram:
    """It imports from `folder` too. What looks at all engines of a process finds only its own there."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def do(self, line: str) -> Any:
        """Returns what the line gives to `answer`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> ToldProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)
