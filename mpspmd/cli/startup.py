"""What each command needs before anything else: standard streams and a working directory."""

from __future__ import annotations

from mpspmd.cli.streams import open_standard_streams
from mpspmd.processes.working_directory import leave_a_deleted_working_directory


def mend_surroundings() -> None:
    """First thing in each command: what was closed or deleted before it began must not harm it."""
    open_standard_streams()
    leave_a_deleted_working_directory()
