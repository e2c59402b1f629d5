"""Silence: notices that the other end of a link says nothing."""

from __future__ import annotations

import logging
import time

from mpspmd.bridge.link import Link

logger = logging.getLogger(__name__)

_LOGGED_S = 0.6
"""A longer silence is logged."""
_PAUSE_S = 1.0
"""If nobody has asked for so long, this process has been stopped: the other end was not silent."""


class Silence:
    """One thread asks again and again."""

    def __init__(self, who: str, limit_s: float) -> None:
        """`who`: the other end, for the log."""
        self._who = who
        self._limit_s = limit_s
        self._asked = time.monotonic()
        self._is_logged = False

    def is_too_long(self, link: Link) -> bool:
        """Whether the other end has been silent for longer than the limit. Logs a shorter silence."""
        now = time.monotonic()
        if now - self._asked > _PAUSE_S:
            link.heard = now
        self._asked = now
        silence_s = now - link.heard
        if silence_s > self._limit_s:
            return True
        if silence_s > _LOGGED_S and not self._is_logged:
            self._is_logged = True
            logger.warning("%s is silent", self._who)
        elif silence_s < _LOGGED_S / 2 and self._is_logged:
            self._is_logged = False
            logger.warning("%s answers again", self._who)
        return False
