"""Log lines where nobody has configured `logging`.

Python writes warnings by `logging.lastResort` then, and that handler is all that is changed here. A program
that has configured `logging` gets the records of mpspmd's loggers (`mpspmd.…`) as it gets all others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from mpspmd.config import LOG_LEVEL_VARIABLE
from mpspmd.errors import ConfigError

_LEVELS = ("debug", "info", "warning", "error", "critical")


def set_level(environ: Mapping[str, str] = os.environ) -> None:
    """Does what MPSPMD_LOG_LEVEL says, in the engine's process and in each rank. ConfigError."""
    text = environ.get(LOG_LEVEL_VARIABLE)
    if text is None:
        return
    if text.lower() not in _LEVELS:
        allowed = ", ".join(_LEVELS)
        raise ConfigError(f"{LOG_LEVEL_VARIABLE}={text!r}: must be one of {allowed}")
    logger = logging.getLogger(__package__)
    logger.setLevel(text.upper())
    if logging.lastResort is not None:
        logging.lastResort.setLevel(min(logging.lastResort.level, logger.level))


def begin_lines_with(prefix: str) -> None:
    """In a rank's process, whose lines come between those of other ranks."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Prefixed(prefix))


class _Prefixed(logging.Formatter):
    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(self._prefix + line for line in super().format(record).splitlines())
