"""without_start_notes: what a program has written, but for the notes of a start that takes long."""

from __future__ import annotations

import re

_NOTE = re.compile(r"^(\[engine\] )?not all ranks are ready after .*\n", re.MULTILINE)


def without_start_notes(text: str) -> str:
    """The engine notes a start that takes 5 s, as any start may on a busy machine."""
    return _NOTE.sub("", text)
