"""A rank of `mpspmd-launch --ranks-only` that prints as many lines as it is told, and marks its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for number in range(int(sys.argv[1])):
    os.write(1, f"line {number}\n".encode())
Path("printed").touch()
