"""What each command needs before anything else: standard descriptors and a working directory."""

from __future__ import annotations

import contextlib
import sys

from mpspmd.runtime.working_directory import leave_a_deleted_working_directory
from mpspmd.transport.descriptor import open_standard_descriptors


def mend_surroundings() -> None:
    """First thing in each command: what was closed or deleted before it began must not harm it."""
    open_standard_descriptors()
    _open_standard_streams()
    leave_a_deleted_working_directory()


def _open_standard_streams() -> None:
    """Python has none for descriptors that were closed when it started."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115
