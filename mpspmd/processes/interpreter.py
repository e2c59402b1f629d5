"""The interpreter that runs ranks and the janitor."""

from __future__ import annotations

import os
from multiprocessing import spawn

from mpspmd.errors import ConfigError


def interpreter() -> str:
    """Its path, which multiprocessing uses too. Raises ConfigError if this user can't run it."""
    path = os.fsdecode(spawn.get_executable() or "")
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    raise ConfigError(
        f"the Python interpreter {path!r} can't be run by this user, and ranks need one: name one that can "
        "with multiprocessing.set_executable(path), before the engine is made; it is sys.executable "
        "otherwise"
    )
